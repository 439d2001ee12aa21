"""What every torch model is that reads windows of tokens: an encoder, and what is made of it."""

from typing import Protocol

from torch import Tensor, nn


class TextEncoder(Protocol):
    """Split in two, so that an engine may compute the encoder's layers in a way of its own."""

    @property
    def backbone(self) -> nn.Module:
        """The transformers model (ELECTRA, BERT, RoBERTa and their like) below the outputs."""

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, tokens, hidden): the backbone's last hidden state."""

    def outputs(self, states: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Named outputs of each window, (batch, …)."""
