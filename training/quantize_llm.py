"""A merged language model to INT8, FP8 or INT4, in the form that vLLM loads, and proved from it.

``w8a8`` (SmoothQuant, then GPTQ) is INT8 for weights and activations. ``fp8`` needs no calibration:
weights per channel, activations per token. ``w4a16`` quantises weights alone, in groups. The head
stays in float in all: it is what decides a token. A config only says what was meant, so what was
really stored is read back from the files' headers: a layer that was skipped is an error.

Source: SmoothQuant (arXiv 2211.10438), GPTQ (arXiv 2210.17323); llm-compressor 0.14.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args

import torch
from safetensors import safe_open
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForCausalLM

from data.errors import ExportError, SettingsError
from data.manifest import Manifest, start_artifact, write_manifest
from serving.language_folder import (
    LANGUAGE_MODEL_KIND,
    read_language_model,
    tokenizer_digest,
)
from training.answer_scores import load_tokenizer
from training.llm_calibration import Calibration, calibration_set
from training.stored_weights import (
    StoredTensor,
    copy_tokenizer,
    float_format,
    refuse_quantised,
    stored_tensors,
    weight_bytes,
    weight_files,
)

QuantizationRecipe = Literal["w8a8", "fp8", "w4a16"]
RECIPES: Final[tuple[QuantizationRecipe, ...]] = get_args(QuantizationRecipe)
HEAD: Final = "lm_head"
STORED: Final[dict[QuantizationRecipe, tuple[str, str]]] = {
    "w8a8": ("weight", "I8"),
    "fp8": ("weight", "F8_E4M3"),
    "w4a16": ("weight_packed", "I32"),
}
"""Recipe → how a quantised layer's weight is named and typed in the file."""
GROUPS: Final = (128, 64, 32)
"""Group sizes of w4a16 that vLLM's kernels know, the fewest bytes first."""
_BLOCK: Final = re.compile(r"layers\.\d+\.")


def quantize_language_model(
    merged: Path,
    targets: Path,
    split: Path | None,
    out: Path,
    *,
    recipe: QuantizationRecipe = "w8a8",
    samples: int = 256,
    seed: int = 0,
    smoothing: float = 0.8,
    capability: tuple[int, int] | None = None,
) -> Manifest:
    """Quantise every linear layer but the head.

    Args:
        merged: artifact of kind language_model, in float.
        targets: artifact of kind targets; its training part calibrates.
        split: the split behind the targets, for a closer check of leakage.
        out: folder for the quantised model.
        recipe: which format.
        samples: texts to calibrate on; ``fp8`` needs none.
        seed: of their choice.
        smoothing: SmoothQuant's strength, 0 to 1; ``w8a8`` alone.
        capability: compute capability of the GPU that is to serve it, as (9, 0); checked before
            anything is read. None leaves that to the launch.

    Raises:
        EngineError: that GPU cannot run the format.
        LeakageError: a calibration text stands in a held-out part.
        ArtifactError: an input is missing, altered, or quantised already.
        ExportError: a layer was skipped, or is not stored as its format says.
    """
    if recipe not in RECIPES:
        raise SettingsError(f"recipe is {recipe!r}, expected one of {list(RECIPES)!r}")
    if capability is not None:
        from serving.vllm_launch import check_format

        check_format(recipe, capability)
    parent = read_language_model(merged)
    refuse_quantised(merged)
    calibration = None
    if recipe != "fp8":
        context = int(AutoConfig.from_pretrained(merged).max_position_embeddings)
        calibration = calibration_set(
            merged, targets, split, samples=samples, seed=seed, max_tokens=context
        )
    start_artifact(out)
    for stale in out.glob("*.safetensors*"):
        stale.unlink()
    model: Any = AutoModelForCausalLM.from_pretrained(merged, dtype="auto", local_files_only=True)
    modifiers, settings = _modifiers(recipe, smoothing, model)
    layers = linear_layers(model)
    _compress(model, merged, modifiers, calibration)
    model.save_pretrained(out, save_compressed=True)
    (out / "recipe.yaml").unlink(missing_ok=True)  # Python tags; the manifest holds the recipe
    copy_tokenizer(merged, out)
    facts = {
        "recipe": settings,
        "calibration": calibration.facts if calibration else None,
        "stored": prove_format(out, recipe, layers),
        "smoothed": prove_smoothed(merged, out) if recipe == "w8a8" else [],
    }
    return write_manifest(
        out, LANGUAGE_MODEL_KIND, {"format": recipe} | _lineage(merged, parent, out) | facts
    )


def _lineage(merged: Path, parent: Manifest, out: Path) -> dict[str, Any]:
    """What a quantised model was made of, and what that saved."""
    return {
        "role": "quantized",
        "parent_digest": parent.digest,
        "parent_format": float_format(merged),
        "base_digest": parent.facts.get("base_digest"),
        "tokenizer_digest": tokenizer_digest(out),
        "bytes": {"before": weight_bytes(merged), "after": weight_bytes(out)},
    }


def linear_layers(model: Any) -> dict[str, int]:
    """Width of the input of every linear layer that is quantised: all but the head, by name."""
    return {
        name: module.in_features
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != HEAD
    }


def prove_format(folder: Path, recipe: QuantizationRecipe, layers: Iterable[str]) -> dict[str, Any]:
    """Prove from the files' headers that every layer is stored as its format says, and only those.

    Args:
        folder: the quantised checkpoint.
        recipe: which format.
        layers: names of the layers that must be quantised.

    Raises:
        ExportError: a layer is not, or the head or the embeddings are.
    """
    stored = stored_tensors(folder)
    suffix, dtype = STORED[recipe]
    wanted = {f"{layer}.{suffix}" for layer in layers}
    found = {name for name, tensor in stored.items() if tensor.dtype == dtype}
    unscaled = [
        f"{layer}.weight_scale" for layer in layers if f"{layer}.weight_scale" not in stored
    ]
    if not wanted or found != wanted or unscaled:
        odd = sorted(wanted - found) or sorted(found - wanted) or unscaled
        raise ExportError(
            f"{str(folder)!r} is not {recipe!r}: {len(wanted - found)} of {len(wanted)} layers are "
            f"not stored as {dtype}, {len(found - wanted)} others are, {len(unscaled)} have no "
            f"scale; first {odd[:1]!r}. It is not called {recipe!r}: quantise again"
        )
    return {
        "quantized_layers": len(wanted),
        "weight_dtype": dtype,
        "tensors": dict(Counter(tensor.dtype for tensor in stored.values())),
        "head": _head_dtype(stored),
    }


def prove_smoothed(parent: Path, folder: Path) -> list[str]:
    """Names of the norms that SmoothQuant scaled; every block must have some.

    Raises:
        ExportError: a block has none: outliers would be cut without a word.
    """
    before, after = _norms(parent), _norms(folder)
    scaled = sorted(
        name for name, norm in after.items() if not torch.equal(norm, before.get(name, norm))
    )
    blocks = {match[0] for name in after if (match := _BLOCK.search(name))}
    smoothed = {match[0] for name in scaled if (match := _BLOCK.search(name))}
    if blocks != smoothed:
        raise ExportError(
            f"SmoothQuant left out {sorted(blocks - smoothed)!r} of {len(blocks)} blocks: it knows "
            "no mapping for this architecture; name its norms and layers in SmoothQuantModifier"
        )
    return scaled


def _norms(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            names: list[str] = file.keys()
            found |= {name: file.get_tensor(name) for name in names if name.endswith("norm.weight")}
    return found


def _head_dtype(stored: Mapping[str, StoredTensor]) -> str:
    """What the head is stored as; tied to the embeddings it is stored as they are."""
    name = f"{HEAD}.weight"
    if name in stored:
        return stored[name].dtype
    return next(each.dtype for name, each in stored.items() if name.endswith("embed_tokens.weight"))


def _modifiers(
    recipe: QuantizationRecipe, smoothing: float, model: Any
) -> tuple[list[Any], dict[str, Any]]:
    """llm-compressor's modifiers of a recipe, and what is recorded of them."""
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    if recipe == "w8a8":
        smooth = SmoothQuantModifier(smoothing_strength=smoothing)
        gptq = GPTQModifier(targets="Linear", scheme="W8A8", ignore=[HEAD])
        return [smooth, gptq], {"SmoothQuant": smoothing, "GPTQ": "W8A8", "ignore": [HEAD]}
    if recipe == "fp8":
        plain = QuantizationModifier(targets="Linear", scheme="FP8_DYNAMIC", ignore=[HEAD])
        return [plain], {"Quantization": "FP8_DYNAMIC", "ignore": [HEAD]}
    widths = set(linear_layers(model).values())
    size = next((each for each in GROUPS if all(width % each == 0 for width in widths)), None)
    if size is None:
        raise ExportError(
            f"layers are {sorted(widths)!r} wide, which no group size of {list(GROUPS)!r} divides; "
            "w4a16 cannot hold this model: use w8a8"
        )
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": size}
    scheme = {"targets": ["Linear"], "weights": weights | {"symmetric": True}}
    grouped = GPTQModifier(config_groups={"group_0": scheme}, ignore=[HEAD])
    return [grouped], {"GPTQ": "W4A16", "group_size": size, "ignore": [HEAD]}


def _compress(
    model: Any, merged: Path, modifiers: list[Any], calibration: Calibration | None
) -> None:
    """Quantise a model in place.

    Raises:
        ExportError: a layer was rounded plainly, where GPTQ was asked for.
    """
    from llmcompressor.entrypoints.oneshot import oneshot
    from loguru import logger

    texts = calibration.rendered if calibration else []
    rows: Any = [{"input_ids": torch.tensor([each.ids])} for each in texts]
    warnings: list[str] = []
    sink = logger.add(warnings.append, level="WARNING", format="{message}")
    try:
        oneshot(
            model=model,
            tokenizer=load_tokenizer(merged),
            # One text a batch: the library cuts the texts of a batch to the shortest.
            dataset=DataLoader(rows, batch_size=None) if rows else None,
            recipe=modifiers,
            num_calibration_samples=len(rows),
        )
    finally:
        logger.remove(sink)
    for warning in warnings:
        # Where GPTQ cannot solve a layer it rounds it plainly, and only warns.
        if "Hessian inversion failed" in warning:
            raise ExportError(f"{warning.strip()!r}: calibrate on more texts, so that GPTQ is used")
