"""An embedding model's architecture: a transformers encoder, pooled, projected, normalised."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel

from data.errors import ArtifactError
from serving.embedding_folder import VECTOR, Pooling

WEIGHTS_NAME: Final = "model.safetensors"
CONFIG_NAME: Final = "config.json"
DENSE_NAME: Final = "dense.json"
OUTPUT: Final = VECTOR
Activation = Literal["Identity", "Tanh", "ReLU", "GELU"]
ACTIVATIONS: Final[tuple[Activation, ...]] = get_args(Activation)
"""Of a dense layer, as torch.nn names them."""


class SentenceEncoder(nn.Module):
    """One vector per window of tokens."""

    def __init__(
        self,
        backbone: nn.Module,
        *,
        pooling: Pooling = "mean",
        normalize: bool = True,
        dense: nn.Module | None = None,
    ):
        """Wrap a transformers encoder.

        Args:
            backbone: answers with ``last_hidden_state``, (batch, tokens, hidden).
            pooling: mean of the real tokens, or the first token's state.
            normalize: whether vectors have length 1.
            dense: what the pooled vector goes through before it is normalised, if anything.
        """
        super().__init__()
        self._backbone = backbone
        self.dense = dense
        self.pooling = pooling
        self.normalize = normalize

    @property
    def backbone(self) -> nn.Module:
        """The transformers model below the pooling."""
        return self._backbone

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, tokens, hidden): the backbone's last hidden state."""
        output = self._backbone(input_ids=input_ids, attention_mask=attention_mask)
        states: Tensor = output.last_hidden_state
        return states

    def outputs(self, states: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """``embedding``: (batch, dimensions), float32 whatever the backbone computes in."""
        # In float16 the sum over a long window and the squares of a norm may overflow.
        states = states.float()
        if self.pooling == "cls":
            vector = states[:, 0]
        else:
            mask = attention_mask.unsqueeze(-1).to(states.dtype)
            vector = (states * mask).sum(1) / mask.sum(1).clamp(min=1.0)
        if self.dense is not None:
            vector = self.dense(vector)
        return {OUTPUT: functional.normalize(vector, dim=-1) if self.normalize else vector}

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, dimensions), as the exported graphs answer."""
        return self.outputs(self.states(input_ids, attention_mask), attention_mask)[OUTPUT]


def dense_layers(shapes: Sequence[tuple[int, int, bool, Activation]]) -> nn.Sequential:
    """Layers that a pooled vector goes through: (inputs, outputs, bias, activation) of each.

    Raises:
        ValueError: an activation is none of ``ACTIVATIONS``.
    """
    layers = nn.Sequential()
    for inputs, outputs, bias, activation in shapes:
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r} is none of {ACTIVATIONS!r}")
        layers.append(nn.Linear(inputs, outputs, bias=bias))
        layers.append(getattr(nn, activation)())
    return layers


def without_pooler(backbone: nn.Module) -> nn.Module:
    """BERT and RoBERTa carry a layer for sentence pairs that no embedding goes through."""
    if getattr(backbone, "pooler", None) is not None:
        backbone.pooler = None  # type: ignore[assignment]
    return backbone


def save_sentence_encoder(model: SentenceEncoder, folder: Path) -> None:
    """Write the backbone's configuration and all weights, as safetensors only."""
    from safetensors.torch import save_model

    folder.mkdir(parents=True, exist_ok=True)
    config = model.backbone.config
    (folder / CONFIG_NAME).write_text(config.to_json_string(use_diff=False), encoding="utf-8")  # type: ignore[union-attr,operator]
    if model.dense is not None:
        layers = list(model.dense.children())
        shapes = [
            (linear.in_features, linear.out_features, linear.bias is not None, type(after).__name__)
            for linear, after in zip(layers[::2], layers[1::2], strict=True)
        ]
        (folder / DENSE_NAME).write_text(json.dumps(shapes) + "\n", encoding="utf-8")
    save_model(model, str(folder / WEIGHTS_NAME))


def load_sentence_encoder(
    folder: Path,
    *,
    pooling: Pooling,
    normalize: bool,
    attention: str = "sdpa",
    dtype: torch.dtype = torch.float32,
) -> SentenceEncoder:
    """Read what ``save_sentence_encoder`` wrote, in eval mode.

    Args:
        folder: the torch model.
        pooling: as its spec says.
        normalize: as its spec says.
        attention: transformers' implementation.
        dtype: of the backbone; dense layers stay in float32.

    Raises:
        ArtifactError: a file is missing or does not fit the architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        backbone = AutoModel.from_config(
            config, attn_implementation=attention, trust_remote_code=False
        )
        dense = None
        if (folder / DENSE_NAME).is_file():
            dense = dense_layers(json.loads((folder / DENSE_NAME).read_text(encoding="utf-8")))
        model = SentenceEncoder(
            without_pooler(backbone), pooling=pooling, normalize=normalize, dense=dense
        )
        load_model(model, str(folder / WEIGHTS_NAME))
    except (OSError, RuntimeError, TypeError, ValueError, SafetensorError) as error:
        raise ArtifactError(
            f"{str(folder)!r} holds no loadable sentence encoder: {error}; make it again"
        ) from error
    model.backbone.to(dtype)
    return model.eval()
