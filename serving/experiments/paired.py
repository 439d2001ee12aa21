"""Pairs in a report: the same items under the control and another arm, scored or judged.

In: a JSONL file, one pair a line, all keys needed:

    {"item": "review-17", "control": 0.71, "arm": 0.83}

``item`` names what both were given, once. Of a replay on held-out gold, ``control`` and ``arm`` are
the scores of both answers. Of a judge's preferences, the better answer has 1 and the other 0, and a
tie has 0.5 both. Out: the report with one more row in its ``paired`` section.

Pairs are read once, when all of them are there, so their intervals are for one look: a bootstrap of
the mean difference, or the exact sign test. They stand beside the verdict and do not make it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data.errors import ExperimentError
from serving.experiments.goals import MetricGoal
from serving.experiments.inference.exact import permutation_test, sign_test
from serving.experiments.inference.fixed_looks import paired_bootstrap
from serving.experiments.inference.levels import Floats
from serving.experiments.metric_comparison import Finding, reading_of, row_of
from serving.experiments.report import ExperimentReport, Said

Source = Literal["replay", "preference"]
PREFERENCE: Final = "preference"
_DRAWS: Final = 10_000
_LEAST: Final = 2
_ONE_LOOK: Final = Said(
    en="Of one look, at pairs that were fixed beforehand.",
    ko="미리 정한 쌍을 한 번 확인한 결과입니다.",
)


class Pair(BaseModel):
    """One item under both arms."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    item: str = Field(min_length=1, max_length=500)
    control: float = Field(allow_inf_nan=False)
    arm: float = Field(allow_inf_nan=False)


def read_pairs(path: Path) -> tuple[Pair, ...]:
    """The pairs of a JSONL file.

    Raises:
        ExperimentError: it cannot be read, a line is no pair, or an item stands twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ExperimentError(
            f"cannot read the pairs {str(path)!r}: {error}; name a JSONL file in UTF-8"
        ) from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            pairs.append(Pair.model_validate_json(line))
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, each['loc'])) or 'line'}: {each['msg']}"
                for each in error.errors()
            )
            raise ExperimentError(
                f"line {number!r} of {str(path)!r} is no pair: {wrong}; write an object with "
                "'item', 'control' and 'arm'"
            ) from error
    _check_items(pairs)
    return tuple(pairs)


def add_paired(
    report: ExperimentReport,
    arm: str,
    pairs: Sequence[Pair],
    *,
    source: Source,
    goal: MetricGoal | None = None,
    seed: int = 0,
) -> ExperimentReport:
    """The report with the pairs of one metric.

    Args:
        report: of the experiment.
        arm: that is held against the control.
        pairs: two or more.
        source: "replay" of scores, or a judge's "preference".
        goal: the metric, its direction and margin; of a preference the judge's, a higher share of
            wins being better.
        seed: of the resampling.

    Raises:
        ExperimentError: the report has no such challenger, there are too few pairs, an item stands
            twice, a replay comes without its goal, or a preference is none.
    """
    challengers = [each.name for each in report.arms[1:]]
    if arm not in challengers:
        raise ExperimentError(f"arm={arm!r} is no challenger; take one of {challengers!r}")
    if len(pairs) < _LEAST:
        raise ExperimentError(f"{len(pairs)!r} pairs say nothing; give {_LEAST} or more")
    _check_items(pairs)
    ours = np.asarray([pair.control for pair in pairs], dtype=np.float64)
    theirs = np.asarray([pair.arm for pair in pairs], dtype=np.float64)
    if source == "preference":
        goal = MetricGoal(name=PREFERENCE, direction="increase")
        finding = _preferred(ours, theirs, report.alpha)
    elif goal is None:
        raise ExperimentError("a replay needs its goal: the metric's name, direction and margin")
    else:
        finding = _replayed(ours, theirs, report.alpha, seed)
    row = row_of(
        goal,
        "paired",
        arm,
        finding,
        control_value=float(ours.mean()),
        value=float(theirs.mean()),
        units=(len(pairs), len(pairs)),
        alpha=report.alpha,
        kind="preference" if source == "preference" else "paired",
    )
    # Fixed beforehand and looked at once: here the interval may be read.
    row = row.model_copy(update={"reading": reading_of(row.low, row.high, goal)})
    return report.model_copy(update={"paired": (*report.paired, row)})


def _replayed(ours: Floats, theirs: Floats, alpha: float, seed: int) -> Finding:
    found = paired_bootstrap(ours, theirs, alpha=alpha, draws=_DRAWS, seed=seed)
    p = permutation_test(ours, theirs, draws=_DRAWS, seed=seed, paired=True).p
    return Finding("bootstrap", found.estimate, found.low, found.high, p, note=_ONE_LOOK)


def _preferred(ours: Floats, theirs: Floats, alpha: float) -> Finding:
    if not (np.isin(ours, (0.0, 0.5, 1.0)).all() and (ours + theirs == 1.0).all()):
        raise ExperimentError(
            "a preference is 1 and 0, 0 and 1, or a tie of 0.5 both; pass scores as a replay"
        )
    wins, losses = int((theirs > ours).sum()), int((theirs < ours).sum())
    found = sign_test(wins, losses, len(ours) - wins - losses, alpha=alpha)
    # Of the decided pairs: the share of wins less the share of losses.
    low, high = 2.0 * found.low - 1.0, 2.0 * found.high - 1.0
    said = Said(
        en=f"{found.wins} won, {found.losses} lost, {found.ties} ties; the difference is of those "
        "that were decided.",
        ko=f"승 {found.wins}, 패 {found.losses}, 무 {found.ties}; 차이는 승패가 난 쌍 기준입니다.",
    )
    return Finding("sign_test", 2.0 * found.share - 1.0, low, high, found.p, note=said + _ONE_LOOK)


def _check_items(pairs: Sequence[Pair]) -> None:
    seen: set[str] = set()
    for pair in pairs:
        if pair.item in seen:
            raise ExperimentError(f"item {pair.item!r} stands twice; give each item one pair")
        seen.add(pair.item)
