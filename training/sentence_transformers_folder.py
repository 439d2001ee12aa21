"""How sentence-transformers lays a model out in a folder: its modules, read without running them.

modules.json names the parts in order: a Transformer, a Pooling, Dense layers, a Normalize. What the
graphs cannot compute is refused by name; weights are safetensors, and code of a model's own is
never run.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import nn

from data.errors import SettingsError
from serving.embedding_folder import Pooling
from serving.sentence_encoder import ACTIVATIONS, dense_layers

_POOLINGS: Final[dict[str, Pooling]] = {"mean": "mean", "cls": "cls"}
_OLD_POOLINGS: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Layout:
    """What a sentence-transformers folder says of itself.

    Attributes:
        transformer: folder of the transformers model and its tokenizer.
        pooling: how token states become one vector.
        dense: what that vector goes through, if anything.
        normalize: whether vectors have length 1.
        max_tokens: of one text, special tokens included; none leaves it to the model.
        lower_case: whether texts are lowercased before the tokenizer.
        prefix: put before every text.
    """

    transformer: Path
    pooling: Pooling
    dense: nn.Sequential | None
    normalize: bool
    max_tokens: int | None
    lower_case: bool
    prefix: str


def read_layout(folder: Path, *, prompt: str | None = None) -> Layout:
    """Read a sentence-transformers folder.

    Args:
        folder: with modules.json.
        prompt: name of the prompt put before every text; none takes the folder's default.

    Raises:
        SettingsError: it is not such a folder, or has a part that is not supported; says which.
    """
    parts = _parts(folder)
    kinds = [kind for kind, _ in parts]
    dense = [path for kind, path in parts if kind == "Dense"]
    normalize = kinds[-1] == "Normalize"
    expected = ["Transformer", "Pooling", *["Dense"] * len(dense), *["Normalize"] * normalize]
    if kinds != expected:
        raise SettingsError(
            f"{str(folder)!r} has the modules {kinds!r}; supported are a Transformer, a Pooling, "
            "Dense layers and a Normalize, in this order: choose another model"
        )
    transformer, pooling = parts[0][1], parts[1][1]
    own = _transformer_settings(transformer)
    prefix = _prefix(folder, prompt)
    return Layout(
        transformer=transformer,
        pooling=_pooling(pooling / "config.json", prefix),
        dense=_dense(dense) if dense else None,
        normalize=normalize,
        max_tokens=own.get("max_seq_length"),
        lower_case=bool(own.get("do_lower_case", False)),
        prefix=prefix,
    )


def _parts(folder: Path) -> list[tuple[str, Path]]:
    path = folder / "modules.json"
    if not path.is_file():
        raise SettingsError(
            f"{str(folder)!r} has no modules.json, so it is not a sentence-transformers model; "
            "save it with SentenceTransformer.save"
        )
    parts = []
    for module in _json(path):
        kind = str(module["type"])
        if not kind.startswith("sentence_transformers."):
            raise SettingsError(
                f"{str(path)!r} asks for the module {kind!r}, code of the model's own, which is "
                "never run; choose a model of sentence-transformers' own modules"
            )
        parts.append((kind.rpartition(".")[2], _inside(folder, module["path"])))
    return parts


def _inside(folder: Path, path: str) -> Path:
    found = (folder / path).resolve()
    if not found.is_relative_to(folder.resolve()):
        raise SettingsError(f"modules.json names path {path!r}, which leaves its folder; refused")
    return found


def _transformer_settings(folder: Path) -> dict[str, Any]:
    # sentence_bert_config.json, sentence_roberta_config.json, … as the version that wrote it had it
    for path in sorted(folder.glob("sentence_*_config.json")):
        return dict(_json(path))
    return {}


def _pooling(path: Path, prefix: str) -> Pooling:
    config = _json(path)
    mode = config.get("pooling_mode")
    if mode is None:
        modes = [new for old, new in _OLD_POOLINGS.items() if config.get(old)]
        mode = modes[0] if len(modes) == 1 else modes
    if not isinstance(mode, str) or mode not in _POOLINGS:
        raise SettingsError(
            f"{str(path)!r} pools by {mode!r}; supported are {sorted(_POOLINGS)!r}: choose another "
            "model"
        )
    if prefix and not config.get("include_prompt", True):
        raise SettingsError(
            f"{str(path)!r} leaves the prompt {prefix!r} out of the pooling, which is not "
            "supported; choose another model, or one of its prompts that is empty"
        )
    return _POOLINGS[mode]


def _dense(folders: Sequence[Path]) -> nn.Sequential:
    shapes: list[Any] = []
    tensors: dict[str, torch.Tensor] = {}
    for number, folder in enumerate(folders):
        config = _json(folder / "config.json")
        activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
        name = activation.rpartition(".")[2]
        if not activation.startswith("torch.nn.") or name not in ACTIVATIONS:
            raise SettingsError(
                f"{str(folder)!r} has activation_function {activation!r}; supported are "
                f"{ACTIVATIONS!r} of torch.nn: choose another model"
            )
        read, residual = config.get("module_input_name"), config.get("use_residual", False)
        if read not in {None, "sentence_embedding"} or residual:
            raise SettingsError(
                f"{str(folder)!r} reads {read!r} with use_residual={residual!r}; supported is a "
                "plain layer on the pooled vector: choose another model"
            )
        weights = _weights(folder)
        tensors |= {
            f"{2 * number}.{key.removeprefix('linear.')}": value for key, value in weights.items()
        }
        bias = bool(config.get("bias", True))
        shapes.append((config["in_features"], config["out_features"], bias, name))
    layers = dense_layers(shapes)
    try:
        layers.load_state_dict(tensors)
    except RuntimeError as error:
        raise SettingsError(
            f"the dense layers in {[str(f) for f in folders]!r} do not fit their config.json: "
            f"{error}; fetch the model again"
        ) from error
    return layers


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    path = folder / "model.safetensors"
    if not path.is_file():
        raise SettingsError(
            f"{str(folder)!r} has no model.safetensors; pickled weights are never loaded: load the "
            "model in sentence-transformers and save it with safe_serialization=True"
        )
    return load_file(str(path))


def _prefix(folder: Path, prompt: str | None) -> str:
    path = folder / "config_sentence_transformers.json"
    config = _json(path) if path.is_file() else {}
    prompts = config.get("prompts") or {}
    name = prompt or config.get("default_prompt_name")
    if name is None:
        return ""
    if name not in prompts:
        raise SettingsError(
            f"prompt={name!r} is none of the model's prompts {sorted(prompts)!r}; name one of them"
        )
    return str(prompts[name])


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read {str(path)!r}: {error}; fetch the model again") from error
