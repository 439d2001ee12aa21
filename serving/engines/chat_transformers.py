"""A language model in this process: what answers where there is no vLLM, and what is evaluated.

The same prompts, template, grammar and greedy choice as vLLM, on a CPU or a GPU. INT8 checkpoints
of llm-compressor are computed as stored: weights from their INT8 values, activations rounded to
INT8 on their way into each layer. That shows INT8's quality, not its speed.
"""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import jinja2
import torch
import transformers
from transformers import LogitsProcessorList, StoppingCriteriaList

from data.errors import EngineError
from serving.engines.chat import ChatAnswer, ChatRequest
from serving.engines.constrained import (
    ConstrainedScores,
    Row,
    RowsDone,
    compile_schema,
    grammar_tokenizer,
)
from serving.language_model import LanguageModel, load_language_model

_HOTTEST: Final = 2.0
_SHOWN: Final = 200


@dataclass(frozen=True)
class _Prompt:
    """A request as the model reads it."""

    index: int
    request: ChatRequest
    ids: list[int]
    row: Row


class TransformersChatEngine:
    """Answers prompts with a loaded model, in batches, one batch at a time."""

    def __init__(self, loaded: LanguageModel, *, max_batch_tokens: int = 16_384):
        """Take a model over.

        Args:
            loaded: the model and its tokenizer.
            max_batch_tokens: rows of a batch x their longest prompt and answer stay within it.
        """
        self.name = f"transformers-{transformers.__version__}"
        self.context = loaded.context
        self._loaded = loaded
        self._grammar = grammar_tokenizer(loaded.tokenizer, loaded.vocabulary, sorted(loaded.ends))
        self._max_batch_tokens = max_batch_tokens
        # One worker: one batch at a time, those of several callers in turn.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chat")

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        adapter: Path | None = None,
        device: str = "cpu",
        threads: int | None = None,
        max_batch_tokens: int = 16_384,
    ) -> Self:
        """Load a model's folder, and an adapter on top of it.

        Args:
            folder: of the kind ``language_model``.
            adapter: of the kind ``language_adapter``, for this model.
            device: as torch names it.
            threads: of torch, in this whole process; None leaves them.
            max_batch_tokens: see the class.

        Raises:
            ArtifactError: a folder is not whole, could run code, or its parts do not fit together.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        loaded = load_language_model(folder, adapter=adapter, device=device)
        return cls(loaded, max_batch_tokens=max_batch_tokens)

    async def complete(self, requests: Sequence[ChatRequest]) -> list[ChatAnswer]:
        """See ``ChatEngine.complete``. A caller who goes away stops what runs for them."""
        loop = asyncio.get_running_loop()
        stop = threading.Event()
        answers: dict[int, ChatAnswer] = {}
        try:
            prompts = await loop.run_in_executor(self._worker, self._read, requests, answers)
            lengths = [len(each.ids) + each.row.max_tokens for each in prompts]
            for batch in plan_batches(lengths, self._max_batch_tokens):
                chosen = [prompts[number] for number in batch]
                answers |= await loop.run_in_executor(self._worker, self._answer, chosen, stop)
        finally:
            stop.set()
        return [answers[index] for index in range(len(requests))]

    def close(self) -> None:
        """Wait for the batch that runs, and end the worker."""
        self._worker.shutdown()

    def _read(
        self, requests: Sequence[ChatRequest], refused: dict[int, ChatAnswer]
    ) -> list[_Prompt]:
        """Prompts as token ids; what cannot be asked is answered at once, in ``refused``."""
        prompts = []
        for index, request in enumerate(requests):
            try:
                prompts.append(self._read_one(index, request))
            except EngineError as error:
                refused[index] = ChatAnswer("", "error", error=str(error))
        return prompts

    def _read_one(self, index: int, request: ChatRequest) -> _Prompt:
        ids = self._token_ids(request)
        room = self.context - len(ids)
        if room < 1:
            raise EngineError(
                f"the prompt has {len(ids)} tokens, the model's context is {self.context}; "
                "send fewer or shorter reviews"
            )
        if request.max_tokens < 1 or not 0 <= request.temperature <= _HOTTEST:
            raise EngineError(
                f"max_tokens={request.max_tokens!r}, temperature={request.temperature!r}; "
                f"send at least 1, and 0 to {_HOTTEST}"
            )
        generator = None
        if request.temperature > 0:
            generator = torch.Generator()
            if request.seed is None:
                generator.seed()
            else:
                generator.manual_seed(request.seed)
        schema = request.schema
        matcher = None if schema is None else compile_schema(self._grammar, schema)
        # As vLLM does: an answer may be shorter than asked for, a prompt never.
        most = min(request.max_tokens, room)
        return _Prompt(index, request, ids, Row(matcher, most, request.temperature, generator))

    def _token_ids(self, request: ChatRequest) -> list[int]:
        try:
            ids: Any = self._loaded.tokenizer.apply_chat_template(
                [{"role": m["role"], "content": m["content"]} for m in request.messages],
                add_generation_prompt=True,
                return_dict=False,
            )
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError) as error:
            raise EngineError(
                f"{str(request.messages)[:_SHOWN]!r} cannot be rendered: {error}; send a list of "
                "messages with role and content"
            ) from error
        return list(ids)

    def _answer(self, prompts: Sequence[_Prompt], stop: threading.Event) -> dict[int, ChatAnswer]:
        """Answers of one batch, by index; one that torch cannot do is halved until it can."""
        try:
            self._generate(prompts, stop)
        except (RuntimeError, ValueError, IndexError) as error:
            if len(prompts) == 1:
                reason = f"torch failed on {len(prompts[0].ids)} tokens: {error}"
                return {prompts[0].index: ChatAnswer("", "error", error=reason)}
            if isinstance(error, torch.OutOfMemoryError):
                torch.cuda.empty_cache()
            again = [self._read_one(prompt.index, prompt.request) for prompt in prompts]
            middle = len(again) // 2
            return self._answer(again[:middle], stop) | self._answer(again[middle:], stop)
        return {prompt.index: self._read_row(prompt) for prompt in prompts}

    def _generate(self, prompts: Sequence[_Prompt], stop: threading.Event) -> None:
        """Fill the prompts' rows. Padding stands on the left: answers begin side by side."""
        width = max(len(prompt.ids) for prompt in prompts)
        rows = [prompt.row for prompt in prompts]
        pad = [[0] * (width - len(prompt.ids)) for prompt in prompts]
        ids = [[*some, *prompt.ids] for some, prompt in zip(pad, prompts, strict=True)]
        mask = [[*some, *[1] * len(p.ids)] for some, p in zip(pad, prompts, strict=True)]
        with torch.inference_mode():
            self._loaded.model.generate(
                input_ids=torch.tensor(ids, device=self._loaded.model.device),
                attention_mask=torch.tensor(mask, device=self._loaded.model.device),
                max_new_tokens=max(row.max_tokens for row in rows),
                logits_processor=LogitsProcessorList([ConstrainedScores(rows)]),
                stopping_criteria=StoppingCriteriaList([RowsDone(rows, self._loaded.ends, stop)]),
            )

    def _read_row(self, prompt: _Prompt) -> ChatAnswer:
        row = prompt.row
        counts = (len(prompt.ids), len(row.tokens))
        if row.error is not None:
            return ChatAnswer("", "error", *counts, error=row.error)
        text = self._loaded.tokenizer.decode(
            row.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return ChatAnswer(str(text), "stop" if row.ended else "length", *counts)


def plan_batches(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Which rows go together: of like length, and rows x longest within ``most``.

    A row that is longer than ``most`` goes alone. Longest first, so that what does not fit into
    memory shows at once.

    Args:
        lengths: tokens of each row, its answer's included.
        most: tokens of a batch, padding included.
    """
    batches: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= most:
            batches[-1].append(number)
        else:
            batches.append([number])
    return batches
