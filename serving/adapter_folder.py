"""The folder of one LoRA adapter, and the check that it fits the model it is laid on.

An adapter names the base it was trained on and the tokenizer it learnt to read. Laid on anything
else it answers without an error, only badly, so both are checked before a weight is read.
"""

from pathlib import Path
from typing import Final

from data.errors import ArtifactError
from data.manifest import Manifest, read_manifest
from serving.language_folder import ADAPTER_KIND, refuse_code

_FILES: Final = ("adapter_model.safetensors", "adapter_config.json")


def read_adapter(folder: Path, base: Manifest) -> Manifest:
    """A sealed adapter's manifest, after it was found to fit a base.

    A base that was quantised is still that base: its manifest names it as the parent.

    Args:
        folder: the adapter's.
        base: manifest of the model that it is to be laid on.

    Raises:
        ArtifactError: it is not whole, could run code, or is for another base or tokenizer.
    """
    manifest = read_manifest(folder, ADAPTER_KIND)
    refuse_code(folder)
    missing = [name for name in _FILES if name not in manifest.files]
    if missing:
        raise ArtifactError(f"{str(folder)!r} lacks {missing!r}; run the step train_llm again")
    bases: set[str | None] = {base.digest}
    if base.facts.get("role") == "quantized":
        bases.add(base.facts.get("parent_digest"))
    wanted = manifest.facts.get("base_digest")
    if wanted is None or wanted not in bases:
        raise ArtifactError(
            f"{str(folder)!r} is an adapter for the base {_short(wanted)}, not for "
            f"{_short(base.digest)}; pass that base, or train an adapter on this one"
        )
    read, written = (each.facts.get("tokenizer_digest") for each in (manifest, base))
    if read is None or read != written:
        raise ArtifactError(
            f"{str(folder)!r} learnt with the tokenizer {_short(read)}, its base has "
            f"{_short(written)}; token ids would differ: pass the base that it was trained on"
        )
    return manifest


def _short(digest: object) -> str:
    return repr(digest[:12]) if isinstance(digest, str) else repr(digest)
