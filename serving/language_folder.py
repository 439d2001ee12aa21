"""The folder of one language model, the same for training, registry and serving.

It is what transformers and vLLM load (config, safetensors, tokenizer, chat template), sealed with a
manifest whose facts say what was done to it. Data only: no code, no pickle.
"""

import json
from pathlib import Path
from typing import Any, Final, Literal

from data.errors import ArtifactError
from data.manifest import Manifest, canonical_digest, file_sha256, read_manifest

LANGUAGE_MODEL_KIND: Final = "language_model"
ADAPTER_KIND: Final = "language_adapter"
CHAT_TEMPLATE_NAME: Final = "chat_template.jinja"
GENERATION_MARK: Final = "generation"
Format = Literal["float32", "bfloat16", "w8a8", "fp8", "w4a16"]
_CODE_SUFFIXES: Final = frozenset({".py", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".so"})
_TOKENIZER_FILES: Final = ("tokenizer.json", CHAT_TEMPLATE_NAME)


def read_language_model(folder: Path) -> Manifest:
    """A sealed language model's manifest, after the folder was found to hold data alone.

    Raises:
        ArtifactError: it is not whole, or holds what could run as code.
    """
    manifest = read_manifest(folder, LANGUAGE_MODEL_KIND)
    refuse_code(folder)
    return manifest


def refuse_code(folder: Path) -> None:
    """Refuse a checkpoint that could run code when it is loaded, before it is.

    Raises:
        ArtifactError: it has a pickle or a program, a config with ``auto_map``, or is no folder.
    """
    if not folder.is_dir():
        raise ArtifactError(f"{str(folder)!r} is not a folder; name a checkpoint's folder")
    programs = sorted(
        path.name for path in folder.rglob("*") if path.suffix.lower() in _CODE_SUFFIXES
    )
    if programs:
        raise ArtifactError(
            f"{str(folder)!r} holds {programs!r}, which can run code; convert the weights to "
            "safetensors and leave programs out"
        )
    for path in sorted(folder.glob("*config.json")):
        if "auto_map" in _json(path):
            raise ArtifactError(
                f"{str(path)!r} has 'auto_map': it asks to load a program of its own; use a "
                "checkpoint of an architecture that transformers knows"
            )


def tokenizer_digest(folder: Path) -> str:
    """What decides the token ids of a prompt: vocabulary and chat template. Equal, equal ids.

    Raises:
        ArtifactError: a file is missing.
    """
    missing = [name for name in _TOKENIZER_FILES if not (folder / name).is_file()]
    if missing:
        raise ArtifactError(
            f"{str(folder)!r} lacks {missing!r}; save the tokenizer with its chat template"
        )
    return canonical_digest([file_sha256(folder / name) for name in _TOKENIZER_FILES])


def check_chat_template(folder: Path) -> None:
    """Refuse a chat template that does not mark what the assistant says.

    Raises:
        ArtifactError: without the mark, training would learn the prompts as well.
    """
    path = folder / CHAT_TEMPLATE_NAME
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if "endgeneration" not in text:
        raise ArtifactError(
            f"{str(path)!r} has no {{% {GENERATION_MARK} %}} mark around the assistant's words, so "
            "prompts would be learnt too; use data/chat_template.jinja, or add the mark"
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{str(path)!r} is not JSON: {error}; copy the checkpoint anew"
        ) from error
    if not isinstance(value, dict):
        raise ArtifactError(f"{str(path)!r} is not a JSON object; copy the checkpoint anew")
    return value
