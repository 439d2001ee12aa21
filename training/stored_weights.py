"""What a checkpoint's files really hold, read from their headers, and how its tokenizer is kept.

A header is trusted where a config is not: a config says what a model should be, the header what
was written. No weight is loaded.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from data.errors import ArtifactError
from serving.language_folder import Format, tokenizer_digest

FLOAT_FORMATS: Final[dict[str, Format]] = {"F32": "float32", "BF16": "bfloat16"}
TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
"""What a tokenizer may be saved as; copied byte for byte, so that its digest stays."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a checkpoint.

    Attributes:
        dtype: as safetensors names it: F32, BF16, I8, F8_E4M3, I32, ….
    """

    dtype: str
    shape: tuple[int, ...]


def weight_files(folder: Path) -> list[Path]:
    """A checkpoint's safetensors files, in order.

    Raises:
        ArtifactError: there is none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ArtifactError(f"{str(folder)!r} has no safetensors file; name a checkpoint's folder")
    return files


def weight_bytes(folder: Path) -> int:
    """Bytes of a checkpoint's weights, headers included."""
    return sum(path.stat().st_size for path in weight_files(folder))


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a checkpoint by name, over all its shards.

    Raises:
        ArtifactError: there is no safetensors file, or one is damaged.
    """
    found: dict[str, StoredTensor] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                names: list[str] = file.keys()
                for name in names:
                    part = file.get_slice(name)
                    found[name] = StoredTensor(part.get_dtype(), tuple(part.get_shape()))
        except SafetensorError as error:
            raise ArtifactError(
                f"{str(path)!r} is not a safetensors file: {error}; write the checkpoint again"
            ) from error
    return found


def float_format(folder: Path) -> Format:
    """The one type that a float checkpoint's tensors are stored in.

    Raises:
        ArtifactError: tensors are of several types, or of another.
    """
    kinds = {tensor.dtype for tensor in stored_tensors(folder).values()}
    if len(kinds) != 1 or not kinds <= set(FLOAT_FORMATS):
        raise ArtifactError(
            f"{str(folder)!r} stores its tensors as {sorted(kinds)!r}, expected one of "
            f"{sorted(FLOAT_FORMATS)!r}; convert the checkpoint to bfloat16"
        )
    return FLOAT_FORMATS[kinds.pop()]


def refuse_quantised(folder: Path) -> None:
    """Refuse a checkpoint that is quantised: nothing is merged into one, or quantised twice.

    Raises:
        ArtifactError: its config has ``quantization_config``, or it has no config.
    """
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{str(path)!r} cannot be read: {error}; name a checkpoint's folder"
        ) from error
    quantised = config.get("quantization_config")
    if quantised is not None:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise ArtifactError(
            f"{str(folder)!r} is quantised (quantization_config of {method!r}); "
            "pass the float checkpoint that it was made from"
        )


def copy_tokenizer(source: Path, target: Path) -> str:
    """Copy a tokenizer and its chat template as they are; returns their digest.

    Raises:
        ArtifactError: the source lacks a file, or the copy differs.
    """
    digest = tokenizer_digest(source)
    for name in TOKENIZER_FILES:
        (target / name).unlink(missing_ok=True)
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    if tokenizer_digest(target) != digest:
        raise ArtifactError(
            f"{str(target)!r} did not get the tokenizer of {str(source)!r}; run the step again"
        )
    return digest
