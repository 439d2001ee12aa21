"""A sealed language model's folder as torch runs it: checked, whole, and with nothing left over.

Data only: no code of the checkpoint runs, no hub is asked, no pickle is read.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from data.errors import ArtifactError
from data.manifest import Manifest
from serving.adapter_folder import read_adapter
from serving.language_folder import read_language_model, tokenizer_digest

_QUANTIZED: Final = frozenset({"w8a8", "fp8", "w4a16"})
_SHOWN_KEYS: Final = 5


@dataclass(frozen=True)
class LanguageModel:
    """A loaded model.

    Attributes:
        model: in evaluation mode; a PEFT model where an adapter is laid on.
        tokenizer: with the folder's chat template.
        ends: token ids that end an answer.
        context: most tokens of prompt and answer together.
        vocabulary: width of the logits.
        manifest: of the folder.
    """

    model: Any
    tokenizer: PreTrainedTokenizerFast
    ends: frozenset[int]
    context: int
    vocabulary: int
    manifest: Manifest


def load_language_model(
    folder: Path, *, adapter: Path | None = None, device: str = "cpu"
) -> LanguageModel:
    """Load a model, and an adapter on top of it.

    Args:
        folder: of the kind ``language_model``.
        adapter: of the kind ``language_adapter``, for this model.
        device: as torch names it.

    Raises:
        ArtifactError: a folder is not whole, could run code, or its parts do not fit together.
    """
    manifest = read_language_model(folder)
    if adapter is not None:
        read_adapter(adapter, manifest)
    tokenizer = _load_tokenizer(folder, manifest)
    model: Any = _load_weights(folder, manifest)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > vocabulary:
        raise ArtifactError(
            f"{str(folder)!r}: its tokenizer has {len(tokenizer)} tokens, its model {vocabulary}; "
            "put the model's own tokenizer there"
        )
    ends = _end_marks(model.generation_config, tokenizer, folder)
    context = model.config.max_position_embeddings
    # What a checkpoint's author advises for chatting, a repetition penalty for one, is not what
    # training saw, and generate() would fill it in from here.
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=sorted(ends), pad_token_id=min(ends)
    )
    if adapter is not None:
        model = _lay_on(model, adapter)
    model = model.to(torch.device(device)).eval()
    return LanguageModel(model, tokenizer, ends, context, vocabulary, manifest)


def _load_tokenizer(folder: Path, manifest: Manifest) -> PreTrainedTokenizerFast:
    said, found = manifest.facts.get("tokenizer_digest"), tokenizer_digest(folder)
    if said != found:
        raise ArtifactError(
            f"{str(folder)!r} has the tokenizer {found[:12]!r}, its manifest says {said!r}; "
            "run the step that made it again"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(
            f"{str(folder)!r} has no tokenizer that transformers can load: {error}; save it with "
            "save_pretrained"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ArtifactError(
            f"{str(folder)!r} has a tokenizer of {type(tokenizer).__name__!r}; decoding can only "
            "be constrained with one of the tokenizers library: save it with tokenizer.json"
        )
    return tokenizer


def _load_weights(folder: Path, manifest: Manifest) -> Any:
    """The model, every weight of it from the folder, none left over."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        _compute_as_stored(config, folder, manifest)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype="auto",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ArtifactError(
            f"{str(folder)!r} cannot be loaded: {error}; copy the checkpoint anew"
        ) from error
    model, report = loaded
    wrong = {kind: sorted(map(str, names))[:_SHOWN_KEYS] for kind, names in report.items() if names}
    if wrong:
        raise ArtifactError(
            f"{str(folder)!r}: its weights are not those of its config: {wrong!r}; "
            "copy the checkpoint anew"
        )
    return model


def _compute_as_stored(config: Any, folder: Path, manifest: Manifest) -> None:
    """Have compressed weights unpacked once, at loading; refuse what is not compressed-tensors.

    Left packed, they would be unpacked by the first prompt, while it waits.
    """
    stored = getattr(config, "quantization_config", None)
    said = manifest.facts.get("format")
    method = stored.get("quant_method") if isinstance(stored, dict) else None
    if method != ("compressed-tensors" if said in _QUANTIZED else None):
        raise ArtifactError(
            f"{str(folder)!r} is stored as {method!r}, its manifest says {said!r}; "
            "quantise with llm-compressor, whose format is 'compressed-tensors'"
        )
    if isinstance(stored, dict):
        config.quantization_config = stored | {"dequantize": True}


def _end_marks(
    advised: GenerationConfig, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> frozenset[int]:
    """Token ids that end an answer."""
    said = advised.eos_token_id
    marks = set(said) if isinstance(said, list) else {said}
    ends = frozenset(int(mark) for mark in {*marks, tokenizer.eos_token_id} if mark is not None)
    if not ends:
        raise ArtifactError(
            f"{str(folder)!r} names no token that ends an answer; set eos_token in its tokenizer"
        )
    return ends


def _lay_on(model: Any, adapter: Path) -> Any:
    from peft import PeftModel, get_peft_model_state_dict

    try:
        with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
            stored = set(file.keys())
        laid = PeftModel.from_pretrained(model, str(adapter), is_trainable=False)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ArtifactError(
            f"{str(adapter)!r} cannot be laid on its base: {error}; run the step train_llm again"
        ) from error
    used = set(get_peft_model_state_dict(laid, save_embedding_layers=False))
    if stored != used:
        raise ArtifactError(
            f"{str(adapter)!r} has weights for {sorted(stored ^ used)[:_SHOWN_KEYS]!r}, which do "
            "not fit its config or its base; run the step train_llm again"
        )
    return laid
