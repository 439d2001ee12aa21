"""An engine in this process: its answers, its batches, and what harms no other."""

import asyncio
import itertools
import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.answers import ANSWERS, read_answer
from data.errors import ArtifactError
from data.prompts import Message
from serving.engines.chat import ChatAnswer, ChatRequest
from serving.engines.chat_transformers import TransformersChatEngine, plan_batches
from serving.language_folder import CHAT_TEMPLATE_NAME

CHAT = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("chat_requests.py"))))
REVIEWS, ask, free, answers = CHAT.REVIEWS, CHAT.ask, CHAT.free, CHAT.answers


def test_it_chooses_what_transformers_chooses(
    engine: TransformersChatEngine, tiny_base: Path
) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_base, local_files_only=True)
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_base, local_files_only=True)
    for review, answer in zip(REVIEWS, answers(engine, *map(free, REVIEWS)), strict=True):
        text = tokenizer.apply_chat_template(
            list(free(review).messages), add_generation_prompt=True, tokenize=False
        )
        inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        out = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0]
        width = inputs["input_ids"].shape[1]
        assert answer.prompt_tokens == width
        assert answer.text == tokenizer.decode(out[width:], skip_special_tokens=True)


def test_batch_mates_change_nothing(engine: TransformersChatEngine) -> None:
    requests = [ask(r) for r in REVIEWS] + [
        free(r, max_tokens=3 + n) for n, r in enumerate(REVIEWS)
    ]
    assert answers(engine, *requests) == [answers(engine, each)[0] for each in requests]


def test_an_answer_is_cut_at_its_own_limit(engine: TransformersChatEngine) -> None:
    long, short = answers(engine, ask(REVIEWS[1], max_tokens=30), ask(REVIEWS[1], max_tokens=5))
    assert (long.finish_reason, long.completion_tokens) == ("length", 30)
    assert (short.finish_reason, short.completion_tokens) == ("length", 5)
    assert long.text.startswith(short.text)


def test_a_prompt_longer_than_the_context_is_refused_alone(engine: TransformersChatEngine) -> None:
    endless, fine = answers(engine, free("맛 " * 3000), free(REVIEWS[0]))
    assert endless.finish_reason == "error"
    assert endless.text == ""
    assert "the model's context is 1024" in str(endless.error)
    assert fine.error is None
    assert fine.text


def test_a_prompt_that_just_fits_is_answered_shortly(engine: TransformersChatEngine) -> None:
    empty: Message = {"role": "user", "content": ""}
    [bare] = answers(engine, ChatRequest([empty], max_tokens=1))
    full: Message = {"role": "user", "content": "!" * (engine.context - bare.prompt_tokens - 2)}
    [answer] = answers(engine, ChatRequest([full], max_tokens=50))
    assert answer.prompt_tokens == engine.context - 2
    assert answer.completion_tokens == 2
    assert answer.finish_reason == "length"
    over: Message = {"role": "user", "content": full["content"] + "!!"}
    [refused] = answers(engine, ChatRequest([over], max_tokens=50))
    assert refused.finish_reason == "error"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"schema": {"type": "nonsense"}}, "Invalid type: nonsense"),
        ({"schema": {"$ref": "#/nowhere"}}, "/nowhere"),
        ({"schema": {"enum": []}}, "Unsatisfiable"),
        ({"schema": {"type": "string", "pattern": "(?=a)b"}}, "look-around"),
        ({"schema": {"type": {"a", "b"}}}, "is not a JSON Schema"),
        ({"schema": ["type"]}, "is not a JSON Schema"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"messages": [{"role": "user"}]}, "cannot be rendered"),
        ({"messages": [{"role": "user", "content": None}]}, "cannot be rendered"),
        ({"messages": "안녕"}, "cannot be rendered"),
    ],
)
def test_a_bad_request_harms_no_other(
    engine: TransformersChatEngine, options: dict[str, Any], reason: str
) -> None:
    good = ask(REVIEWS[0])
    bad = ChatRequest(**{"messages": good.messages, "max_tokens": 5} | options)
    before, wrong, after = answers(engine, good, bad, good)
    assert wrong.finish_reason == "error"
    assert reason in str(wrong.error)
    assert before == after == answers(engine, good)[0]


def test_no_requests_are_no_answers(engine: TransformersChatEngine) -> None:
    assert answers(engine) == []


def test_the_checkpoints_advice_on_sampling_is_not_followed(
    engine: TransformersChatEngine, tiny: Any, tiny_base: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "advised"
    shutil.copytree(tiny_base, folder)
    path = folder / "generation_config.json"
    advice = {"repetition_penalty": 9.0, "do_sample": True, "temperature": 2.0, "eos_token_id": [2]}
    path.write_text(json.dumps(json.loads(path.read_text()) | advice))
    tiny.seal(folder)
    advised = TransformersChatEngine.load(folder)
    assert answers(advised, *map(free, REVIEWS)) == answers(engine, *map(free, REVIEWS))


def test_an_adapter_changes_what_is_said(
    engine: TransformersChatEngine, tiny: Any, tiny_base: Path, tmp_path: Path
) -> None:
    tiny.write_adapter(tmp_path / "adapter", tiny_base)
    laid = TransformersChatEngine.load(tiny_base, adapter=tmp_path / "adapter")
    plain, changed = answers(engine, free(REVIEWS[1])), answers(laid, free(REVIEWS[1]))
    assert changed != plain
    assert read_answer(ANSWERS["labels"], answers(laid, ask(REVIEWS[0]))[0].text, 1).obeyed


def test_int8_answers_in_this_process(tiny: Any, tiny_base: Path, tmp_path: Path) -> None:
    tiny.write_quantized(tmp_path / "int8", tiny_base)
    engine = TransformersChatEngine.load(tmp_path / "int8")
    assert read_answer(ANSWERS["labels"], answers(engine, ask(REVIEWS[0]))[0].text, 1).obeyed


def test_a_batch_too_large_for_memory_is_halved(
    engine: TransformersChatEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [ask(review) for review in REVIEWS]
    expected = answers(engine, *requests)
    sizes = _fail_generate(
        engine, monkeypatch, lambda ids: len(ids) > 2, torch.OutOfMemoryError("no memory")
    )
    assert answers(engine, *requests) == expected
    assert sizes[0] == len(requests)
    assert max(sizes[-2:]) <= 2


def test_a_row_that_torch_cannot_do_harms_no_other(
    engine: TransformersChatEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [free(review, temperature=1.0, seed=3) for review in REVIEWS]
    expected = answers(engine, *requests)
    poison = engine._loaded.tokenizer.apply_chat_template(
        list(requests[1].messages), add_generation_prompt=True, return_dict=False
    )
    _fail_generate(
        engine,
        monkeypatch,
        lambda ids: any(row[-len(poison) :].tolist() == poison for row in ids),
        RuntimeError("a bad row"),
    )
    first, broken, *rest = answers(engine, *requests)
    assert "a bad row" in str(broken.error)
    assert [first, *rest] == [expected[0], *expected[2:]]


def _fail_generate(
    engine: TransformersChatEngine,
    monkeypatch: pytest.MonkeyPatch,
    fails: Callable[[torch.Tensor], bool],
    error: Exception,
) -> list[int]:
    """Have generate fail on some batches; the sizes it was called with are noted."""
    generate, sizes = engine._loaded.model.generate, []

    def failing(**options: Any) -> Any:
        sizes.append(len(options["input_ids"]))
        if fails(options["input_ids"]):
            raise error
        return generate(**options)

    monkeypatch.setattr(engine._loaded.model, "generate", failing)
    return sizes


def test_broken_weights_are_an_error_not_an_answer(
    tiny: Any, tiny_base: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_base, local_files_only=True)
    model.model.norm.weight.data.fill_(torch.nan)
    shutil.copytree(tiny_base, folder)
    model.save_pretrained(folder)
    tiny.seal(folder)
    for answer in answers(TransformersChatEngine.load(folder), ask(REVIEWS[0]), free(REVIEWS[0])):
        assert answer.finish_reason == "error"
        assert "not numbers" in str(answer.error)


def test_callers_take_turns_and_one_who_leaves_is_forgotten(engine: TransformersChatEngine) -> None:
    async def scene() -> list[list[ChatAnswer]]:
        leaving = asyncio.create_task(engine.complete([free(r, max_tokens=900) for r in REVIEWS]))
        staying = [asyncio.create_task(engine.complete([ask(r)])) for r in REVIEWS[:2]]
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        return await asyncio.gather(*staying)

    assert asyncio.run(scene()) == [answers(engine, ask(review)) for review in REVIEWS[:2]]


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200))
def test_batches_hold_every_row_once_within_the_budget(lengths: list[int], most: int) -> None:
    batches = plan_batches(lengths, most)
    assert sorted(n for batch in batches for n in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[n] for n in batch) <= most
    for batch, following in itertools.pairwise(batches):
        assert min(lengths[n] for n in batch) >= max(lengths[n] for n in following)


def test_a_folder_without_a_chat_template_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_base, tmp_path / "m")
    (tmp_path / "m" / CHAT_TEMPLATE_NAME).unlink()
    with pytest.raises(ArtifactError, match="chat_template"):
        TransformersChatEngine.load(tmp_path / "m")
