"""How far each link of the parity chain may be from its parent, and what is beyond it."""

from typing import Final

from pydantic import BaseModel, ConfigDict

from training.answer_parity import AnswerParity
from training.answer_scores import Agreement


class LinkLimits(BaseModel):
    """How far a link's second model may be from its first.

    Attributes:
        max_abs_diff: of any logit of an answer's tokens.
        top1_agreement: least share of tokens where both hold the same one likeliest.
        kl_mean: in nats a token.
        answer_agreement: least share of greedy answers that are the same.
        score_drop: how much of the task score may be lost.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_abs_diff: float
    top1_agreement: float
    kl_mean: float
    answer_agreement: float
    score_drop: float


LIMITS: Final[dict[str, LinkLimits]] = {
    "float32": LinkLimits(
        max_abs_diff=1e-3,
        top1_agreement=0.999,
        kl_mean=1e-6,
        answer_agreement=0.98,
        score_drop=0.01,
    ),
    "bfloat16": LinkLimits(
        max_abs_diff=2.0, top1_agreement=0.97, kl_mean=0.01, answer_agreement=0.8, score_drop=0.02
    ),
    "w8a8": LinkLimits(
        max_abs_diff=4.0, top1_agreement=0.97, kl_mean=0.02, answer_agreement=0.5, score_drop=0.03
    ),
    "fp8": LinkLimits(
        max_abs_diff=4.0, top1_agreement=0.97, kl_mean=0.02, answer_agreement=0.5, score_drop=0.03
    ),
    "w4a16": LinkLimits(
        max_abs_diff=6.0, top1_agreement=0.93, kl_mean=0.06, answer_agreement=0.3, score_drop=0.05
    ),
    "served": LinkLimits(
        max_abs_diff=0.0, top1_agreement=1.0, kl_mean=0.0, answer_agreement=0.8, score_drop=0.02
    ),
}
"""By the format that a link makes, or "served", which gives no logits. The same model answers a
little otherwise in another engine: sums run in another order (vllm#5898).

Seen on a small trained Qwen3 (4 blocks of 192, 64 held-out examples): merging 1e-5 and no other
token; w8a8 0.17, 99.6% and 2e-5 nats; fp8 0.53, 98.8% and 1e-4; w4a16 0.65, 98.5% and 2e-4. Logits
grow with a model, so the limits leave room."""

FEW_ANSWERS: Final[dict[str, LinkLimits]] = {
    name: limits.model_copy(update={"score_drop": 0.1}) for name, limits in LIMITS.items()
} | {"served": LIMITS["served"].model_copy(update={"answer_agreement": 0.5, "score_drop": 0.1})}
"""For the step of the graph, which compares 16 answers: one that goes wholly wrong costs 0.06. What
quantisation costs, the gate judges on many more. What is served may compute in another type.

Seen on the model of `make language`, INT8 over float32, against vLLM 0.32: in float32 14 of 16
answers are the same, in bfloat16 11 of 16, as many as in this process in bfloat16; 44 of 60. The
scores differ by 0.04 at most. Its own base in its place: none of 16."""


def broken_scores(found: Agreement, limits: LinkLimits) -> list[str]:
    """What is wrong with the scores of answers, a phrase each."""
    checks = {
        f"max_abs_diff={found.max_abs_diff:.3g} > {limits.max_abs_diff!r}": (
            found.max_abs_diff <= limits.max_abs_diff
        ),
        f"top1_agreement={found.top1_agreement:.4f} < {limits.top1_agreement!r}": (
            found.top1_agreement >= limits.top1_agreement
        ),
        f"kl_mean={found.kl_mean:.3g} > {limits.kl_mean!r}": found.kl_mean <= limits.kl_mean,
    }
    return [problem for problem, fine in checks.items() if not fine]


def broken_answers(found: AnswerParity, limits: LinkLimits) -> list[str]:
    """What is wrong with whole answers, a phrase each."""
    drop = found.score_before - found.score_after
    checks = {
        f"answers agree in {found.agreement:.3f} < {limits.answer_agreement!r}": (
            found.agreement >= limits.answer_agreement
        ),
        f"the task score falls by {drop:.3f} > {limits.score_drop!r}": drop <= limits.score_drop,
    }
    return [problem for problem, fine in checks.items() if not fine]
