"""The classifier's architecture: an ELECTRA encoder with four linear heads on its pooled output.

The heads are linear in the pooled vector, so the mean of windows' logits is the logits of the mean
vector: training and serving treat long reviews alike (serving/windows.py).
"""

from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ElectraConfig, ElectraModel

from data.contract import ASPECTS, EMOTIONS, INTENSITIES, SENTIMENTS
from data.errors import ArtifactError
from serving.logits import LOGITS

WEIGHTS_NAME: Final = "model.safetensors"
CONFIG_NAME: Final = "config.json"


class MultiTaskElectra(nn.Module):
    """Sentiment, intensity, emotions and aspects of one window of tokens."""

    def __init__(self, config: ElectraConfig, *, head_dropout: float = 0.1):
        """Fresh weights for ``config``; see ``load_encoder`` for trained ones."""
        super().__init__()
        self.config = config
        self.electra = ElectraModel(config)
        size = config.hidden_size
        self.pool = nn.Linear(3 * size, size)
        self.dropout = nn.Dropout(head_dropout)
        self.sentiment_head = nn.Linear(size, len(SENTIMENTS))
        # One score against ordered thresholds: P(intensity > k) can never rise with k.
        self.intensity_head = nn.Linear(size, 1, bias=False)
        self.intensity_first = nn.Parameter(torch.tensor([1.5]))
        self.intensity_gaps = nn.Parameter(torch.full((len(INTENSITIES) - 2,), 0.5))
        self.emotions_head = nn.Linear(size, len(EMOTIONS))
        self.aspects_head = nn.Linear(size, len(ASPECTS) * 3)

    @property
    def backbone(self) -> nn.Module:
        """The ELECTRA below the heads."""
        return self.electra

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, tokens, hidden): the encoder's output."""
        output = self.electra(input_ids=input_ids, attention_mask=attention_mask)
        states: Tensor = output.last_hidden_state
        return states

    def pooled(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, hidden): [CLS], mean and maximum of the real tokens, mixed by one layer."""
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        mean = (states * mask).sum(1) / mask.sum(1)
        highest = (states - (1.0 - mask) * 1e4).amax(1)
        return functional.gelu(self.pool(torch.cat([states[:, 0], mean, highest], dim=-1)))

    def heads(self, pooled: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits as ``serving.logits.Logits`` describes them."""
        thresholds = torch.cat(
            [
                self.intensity_first,
                self.intensity_first - torch.cumsum(functional.softplus(self.intensity_gaps), 0),
            ]
        )
        return (
            self.sentiment_head(pooled),
            self.intensity_head(pooled) + thresholds,
            self.emotions_head(pooled),
            self.aspects_head(pooled).view(-1, len(ASPECTS), 3),
        )

    def outputs(self, states: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """The heads by name, for an engine."""
        values = self.heads(self.dropout(self.pooled(states, attention_mask)))
        return dict(zip(LOGITS, values, strict=True))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits of each window: (n, 3), (n, 4), (n, 8), (n, 6, 3)."""
        states = self.states(input_ids, attention_mask)
        return self.heads(self.dropout(self.pooled(states, attention_mask)))


def save_encoder(model: MultiTaskElectra, folder: Path) -> None:
    """Write architecture and weights, as safetensors only."""
    from safetensors.torch import save_model

    (folder / CONFIG_NAME).write_text(model.config.to_json_string(use_diff=False), encoding="utf-8")
    save_model(model, str(folder / WEIGHTS_NAME))


def load_encoder(folder: Path, *, attention: str = "sdpa") -> MultiTaskElectra:
    """Read what ``save_encoder`` wrote, in eval mode.

    Raises:
        ArtifactError: a file is missing or does not fit the architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    try:
        config = ElectraConfig.from_json_file(str(folder / CONFIG_NAME))
        config._attn_implementation = attention  # noqa: SLF001  # the documented switch takes a hub name
        model = MultiTaskElectra(config)
        load_model(model, str(folder / WEIGHTS_NAME))
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ArtifactError(
            f"{str(folder)!r} holds no loadable encoder: {error}; train it again"
        ) from error
    return model.eval()
