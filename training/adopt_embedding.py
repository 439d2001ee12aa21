"""A published sentence-transformers model, by folder or hub name, to an embedding folder.

Its weights, pooling, dense layers, tokenizer and prompt are brought into the form that the export
and the engines know (serving/embedding_folder.py). A text longer than the model's limit is read in
windows here and cut there; shorter ones get the same vector.
"""

from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer, normalizers
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from data.errors import SettingsError
from data.manifest import start_artifact
from serving.embedding_folder import EmbeddingSpec, write_embedding_spec
from serving.sentence_encoder import SentenceEncoder, save_sentence_encoder, without_pooler
from training.sentence_transformers_folder import Layout, read_layout

_FETCHED: Final = ["*.json", "*.txt", "*.model", "*.safetensors"]
"""Of a hub's repository; its other formats and its code stay there."""
_PROBE: Final = "국물이 정말 맛있어요"


def adopt_embedding(
    source: str,
    out: Path,
    *,
    name: str,
    prompt: str | None = None,
    max_tokens: int | None = None,
    overlap_tokens: int = 32,
) -> EmbeddingSpec:
    """Bring a sentence-transformers model into an embedding folder, not sealed yet.

    Args:
        source: a folder, or a name on the hub.
        out: empty folder; gets source/, tokenizer.json and the spec.
        name: what callers ask for.
        prompt: name of the prompt put before every text; none takes the model's default.
        max_tokens: shorter windows than the model's own limit.
        overlap_tokens: of two windows of a long text.

    Raises:
        SettingsError: it cannot be had, has a part that is not supported, or asks to run code.
    """
    layout = read_layout(_fetched(source), prompt=prompt)
    backbone, tokenizer = _load(source, layout)
    opening, closing = _special_tokens(tokenizer, source)
    window = min(
        _positions(backbone), tokenizer.model_max_length, *filter(None, [layout.max_tokens])
    )
    if max_tokens is not None and max_tokens > window:
        raise SettingsError(
            f"windows.max_tokens={max_tokens!r} is more than the {window} that {source!r} reads; "
            "lower it or leave it out"
        )
    window = max_tokens or window
    start_artifact(out)
    model = SentenceEncoder(
        backbone, pooling=layout.pooling, normalize=layout.normalize, dense=layout.dense
    )
    save_sentence_encoder(model.eval(), out / "source")
    _plain_tokenizer(tokenizer, lower_case=layout.lower_case).save(str(out / "tokenizer.json"))
    spec = EmbeddingSpec(
        name=name,
        architecture=str(backbone.config.model_type),  # type: ignore[union-attr]
        pooling=layout.pooling,
        normalize=layout.normalize,
        dimensions=_dimensions(backbone, layout.dense),
        max_tokens=window,
        overlap_tokens=min(overlap_tokens, window // 4),
        prefix=layout.prefix,
        opening=opening,
        closing=closing,
        padding=str(tokenizer.pad_token),
    )
    write_embedding_spec(out, spec)
    return spec


def _fetched(source: str) -> Path:
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=_FETCHED))
    except Exception as error:  # the hub raises its own, requests' and plain ValueErrors
        raise SettingsError(
            f"pretrained={source!r} is no folder, and the hub did not give it: {error}; check the "
            "name, or that the hub can be reached, or pass a folder"
        ) from error


def _load(source: str, layout: Layout) -> tuple[nn.Module, Any]:
    folder = str(layout.transformer)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        backbone, report = AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise SettingsError(
            f"pretrained={source!r} cannot be loaded: {error}; it needs a configuration that "
            "transformers knows, model.safetensors and a tokenizer (pickles are never loaded)"
        ) from error
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise SettingsError(
            f"pretrained={source!r} lacks the weights {missing[:5]!r}; fetch the model again"
        )
    # Where there is no vocabulary, transformers makes a tokenizer of special tokens alone.
    if not config.vocab_size / 2 < len(tokenizer) <= config.vocab_size:
        raise SettingsError(
            f"pretrained={source!r} has a tokenizer of {len(tokenizer)} tokens for a vocabulary of "
            f"{config.vocab_size}; pass a model with its own tokenizer"
        )
    return without_pooler(backbone), tokenizer


def _special_tokens(tokenizer: Any, source: str) -> tuple[str, str]:
    """The tokens that a text of this model begins and ends with."""
    bare = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    full = tokenizer(_PROBE)["input_ids"]
    if full[1:-1] != bare or tokenizer.pad_token is None:
        told = tokenizer.convert_ids_to_tokens(full)
        raise SettingsError(
            f"pretrained={source!r} reads a text as {told!r}; supported is one token before it, "
            "one after it, and a padding token: choose another model"
        )
    opening, closing = tokenizer.convert_ids_to_tokens([full[0], full[-1]])
    return str(opening), str(closing)


def _positions(backbone: Any) -> int:
    """Tokens that the model has positions for."""
    limit = int(backbone.config.max_position_embeddings)
    # RoBERTa and its like count positions from the padding token's number on.
    first = getattr(backbone.embeddings, "padding_idx", None)
    return limit if first is None else limit - int(first) - 1


def _plain_tokenizer(tokenizer: Any, *, lower_case: bool) -> Tokenizer:
    plain: Tokenizer = tokenizer.backend_tokenizer
    plain.no_truncation()
    plain.no_padding()
    if lower_case:
        own = [plain.normalizer] if plain.normalizer is not None else []
        plain.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    return plain


def _dimensions(backbone: Any, dense: nn.Sequential | None) -> int:
    if dense is None:
        return int(backbone.config.hidden_size)
    return int([layer for layer in dense if isinstance(layer, nn.Linear)][-1].out_features)
