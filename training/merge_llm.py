"""An adapter and its base to one float model.

A 4-bit base stays 4-bit when an adapter is merged into it, so nothing is ever merged into a
quantised base. An adapter that was trained over NF4 corrects NF4's weights, not the checkpoint's:
for it the base is put through NF4 and back first, and the merged model is what was trained.
"""

from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM

from data.errors import ArtifactError, ExportError
from data.manifest import Manifest, start_artifact, write_manifest
from serving.adapter_folder import read_adapter
from serving.language_folder import (
    LANGUAGE_MODEL_KIND,
    Format,
    read_language_model,
    tokenizer_digest,
)
from training.nf4 import load_nf4
from training.stored_weights import (
    copy_tokenizer,
    float_format,
    refuse_quantised,
    stored_tensors,
    weight_bytes,
)

DTYPES: Final[dict[Format, torch.dtype]] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
}


def merge_adapter(
    adapter: Path, base: Path, out: Path, *, through_nf4: bool | None = None
) -> Manifest:
    """Merge an adapter into its base, in the base's own type.

    Args:
        adapter: artifact of kind language_adapter.
        base: artifact of kind language_model; the one that the adapter was trained over.
        out: folder for the merged model.
        through_nf4: whether the base's weights are those of NF4; None does as the adapter's fact
            ``quantized_base`` says.

    Raises:
        ArtifactError: the base is quantised or another one, the tokenizers differ, an input is
            missing or altered, or could run code.
        ExportError: the adapter has no place in the base, or changes nothing.
    """
    parent = read_language_model(base)
    refuse_quantised(base)
    learnt = read_adapter(adapter, parent)
    _check_tokenizers(adapter, base)
    kind = float_format(base)
    if through_nf4 is None:
        through_nf4 = trained_over_nf4(learnt)
    start_artifact(out)
    adapted = load_adapted(adapter, base, through_nf4=through_nf4)
    modules = _check_changes(adapted, adapter)
    merged = adapted.merge_and_unload(safe_merge=True)
    for stale in out.glob("*.safetensors*"):
        stale.unlink()
    merged.save_pretrained(out)
    digest = copy_tokenizer(base, out)
    _check_written(base, out)
    return write_manifest(
        out,
        LANGUAGE_MODEL_KIND,
        {
            "role": "merged",
            "format": kind,
            "base_digest": parent.digest,
            "adapter_digest": learnt.digest,
            "tokenizer_digest": digest,
            "through_nf4": through_nf4,
            "merged_modules": modules,
            "bytes": weight_bytes(out),
        },
    )


def trained_over_nf4(adapter: Manifest) -> bool:
    """Whether an adapter was trained over a base in NF4.

    Raises:
        ArtifactError: its facts do not say.
    """
    said = adapter.facts.get("quantized_base")
    if said not in {"nf4", "none"}:
        raise ArtifactError(
            f"the adapter's fact 'quantized_base' is {said!r}, expected 'nf4' or 'none'; "
            "say through_nf4=True or through_nf4=False"
        )
    return bool(said == "nf4")


def load_adapted(adapter: Path, base: Path, *, through_nf4: bool, stay_in_nf4: bool = False) -> Any:
    """The base with its adapter beside it, not merged: what training saw.

    Args:
        adapter: folder of the adapter.
        base: folder of the base.
        through_nf4: the base's weights are rounded to NF4 …
        stay_in_nf4: … and stay there; otherwise they are put back into the base's own type.

    Raises:
        ExportError: the adapter's weights and the base's layers do not match.
    """
    from peft import PeftModel, get_peft_model_state_dict

    model: Any
    if through_nf4:
        model = load_nf4(base, compute_dtype=DTYPES[float_format(base)])
        model = model if stay_in_nf4 else model.dequantize()
    else:
        model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", local_files_only=True)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
    adapted: Any = PeftModel.from_pretrained(model, str(adapter))
    # What does not match stays as it is made, without an error: an adapter that changes nothing.
    wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    stored = set(stored_tensors(adapter))
    if odd := sorted(wanted ^ stored):
        raise ExportError(
            f"{str(adapter)!r} does not match {str(base)!r}: {len(odd)} of {len(wanted | stored)} "
            f"tensors stand on one side only, first {odd[0]!r}; pass the base it was trained over"
        )
    return adapted.eval()


def _check_tokenizers(adapter: Path, base: Path) -> None:
    """The files themselves: a manifest repeats what its writer said."""
    learnt, own = tokenizer_digest(adapter), tokenizer_digest(base)
    if learnt != own:
        raise ArtifactError(
            f"the tokenizer of {str(adapter)!r} ({learnt[:12]!r}) is not that of {str(base)!r} "
            f"({own[:12]!r}), so the adapter would be asked with tokens that it never learnt; "
            "train it again with the base's tokenizer and chat template"
        )


def _check_changes(adapted: Any, adapter: Path) -> int:
    """How many layers the adapter changes."""
    changes = [
        bool(layer.weight.any())
        for name, layer in adapted.named_modules()
        if ".lora_B." in name and hasattr(layer, "weight")
    ]
    if not any(changes):
        raise ExportError(
            f"{str(adapter)!r} changes none of {len(changes)} layers: it was never trained; "
            "train it, or serve the base"
        )
    return sum(changes)


def _check_written(base: Path, out: Path) -> None:
    """The merged file has the base's tensors, of the same types and shapes, and no quantisation."""
    refuse_quantised(out)
    before, after = stored_tensors(base), stored_tensors(out)
    # A head tied to the embeddings may be stored or left out.
    differing = [
        name
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and name != "lm_head.weight"
    ]
    if differing:
        name = differing[0]
        raise ExportError(
            f"{str(out)!r} differs from its base in {len(differing)} tensors, first {name!r}: "
            f"{before.get(name)!r} became {after.get(name)!r}; merge again with the peft that the "
            "lock pins"
        )
