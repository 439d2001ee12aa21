"""How surprised a model is by the gold answers: the loss of their tokens, prompts left out.

A perplexity alone says little, so each prompt is also scored with the answer that is right for
another restaurant: a model that reads its prompt is more surprised by that one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import DataUnfitError, MetricError
from data.examples import Example
from training.evaluation.language.form import Parts
from training.evaluation.language.gold import Gold

if TYPE_CHECKING:
    from serving.language_model import LanguageModel


def perplexity_parts(
    folder: Path, gold: Gold, others: Sequence[str], *, context: int | None = None
) -> list[Parts]:
    """Summed loss and tokens of each example's gold answer, and of another restaurant's.

    Args:
        folder: a sealed language model's; it runs on the GPU if there is one.
        gold: the examples.
        others: of each example, the gold answer of another restaurant.
        context: tokens that a prompt with its answer may take; by default the model's own.

    Returns:
        ``nll`` and ``nll_other`` as ``[nats, tokens]``, one per example.

    Raises:
        ArtifactError: the folder is not whole, could run code, or has another chat template.
        MetricError: an example is longer than the context: nothing is cut.
    """
    # torch and transformers take seconds to load, and most callers give no folder.
    import torch

    from serving.language_model import load_language_model

    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_language_model(folder, device=device)
    limit = context or loaded.context
    parts: list[Parts] = []
    for example, other in zip(gold.examples, others, strict=True):
        mismatched = example.model_copy(update={"answer": other})
        losses = {"nll": _loss(loaded, example, limit)}
        parts.append(losses | {"nll_other": _loss(loaded, mismatched, limit)})
    return parts


def _loss(loaded: "LanguageModel", example: Example, limit: int) -> list[float]:
    import torch

    from training.answer_scores import answer_logits, render_examples

    try:
        picked = render_examples(loaded.tokenizer, [example], count=1, max_tokens=limit)
    except DataUnfitError as error:
        raise MetricError(
            f"the {example.task} example of {example.about!r} is longer than {limit} tokens, so "
            "its perplexity cannot be computed; take a model with a longer context"
        ) from error
    (rendered,) = picked.rendered
    scores = answer_logits(loaded.model, rendered).log_softmax(-1)
    ids = torch.tensor([rendered.ids[at] for at in rendered.answer], device=scores.device)
    return [-float(scores.gather(1, ids[:, None]).sum()), float(len(ids))]
