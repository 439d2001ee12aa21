"""An embedding model's architecture: a transformers encoder, pooled, projected, normalised."""

from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel

from data.errors import ArtifactError
from serving.embedding_folder import Pooling

WEIGHTS_NAME: Final = "model.safetensors"
CONFIG_NAME: Final = "config.json"
OUTPUT: Final = "embedding"


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
        """``embedding``: (batch, dimensions)."""
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


def save_sentence_encoder(model: SentenceEncoder, folder: Path) -> None:
    """Write the backbone's configuration and all weights, as safetensors only."""
    from safetensors.torch import save_model

    folder.mkdir(parents=True, exist_ok=True)
    config = model.backbone.config
    (folder / CONFIG_NAME).write_text(config.to_json_string(use_diff=False), encoding="utf-8")  # type: ignore[union-attr,operator]
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

    Raises:
        ArtifactError: a file is missing or does not fit the architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(str(folder / WEIGHTS_NAME))
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        backbone = AutoModel.from_config(
            config, attn_implementation=attention, trust_remote_code=False
        )
        dense = None
        if "dense.weight" in weights:
            rows, columns = weights["dense.weight"].shape
            dense = nn.Linear(columns, rows, bias="dense.bias" in weights)
        model = SentenceEncoder(backbone, pooling=pooling, normalize=normalize, dense=dense)
        model.load_state_dict(weights, strict=False)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ArtifactError(
            f"{str(folder)!r} holds no loadable sentence encoder: {error}; make it again"
        ) from error
    return model.to(dtype).eval()
