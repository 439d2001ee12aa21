"""What tuning found, as an artifact: every trial, the best recipe, and how the score rose.

``trials.json`` and ``trials.md`` have each trial, failed and pruned ones too; ``best_recipe.yaml``
is a whole recipe that the trainer takes as it is; ``history.svg`` is the plot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict

from data.errors import SettingsError
from data.manifest import (
    Manifest,
    canonical_digest,
    start_artifact,
    write_json,
    write_manifest,
    write_text_atomically,
)
from training.evaluation.plots import history_svg
from training.search_space import (
    REDUCTION,
    AnyRecipe,
    Kind,
    SearchSpace,
    Value,
    changed_recipe,
    recipe_digest,
    recipe_of,
    recipe_text,
)
from training.trial import MEASURES
from training.tuning_study import OWN, REASON, Pruner, was_cut_off

TUNING_KIND: Final = "tuning"
TRIALS_NAME: Final = "trials.json"
TABLE_NAME: Final = "trials.md"
BEST_NAME: Final = "best_recipe.yaml"
HISTORY_NAME: Final = "history.svg"
Ending = Literal["complete", "pruned", "failed", "cut off"]


@dataclass(frozen=True)
class Search:
    """What was looked for, where, and how."""

    kind: Kind
    recipe: AnyRecipe
    space: SearchSpace
    pruner: Pruner
    seed: int
    data_digest: str
    start_digest: str

    @property
    def identity(self) -> str:
        """Changes whenever the trials would."""
        said = [self.kind, self.pruner, self.seed, self.data_digest, self.start_digest]
        space = self.space.model_dump(mode="json")
        return canonical_digest([*said, recipe_digest(self.recipe), space])


class TrialRecord(BaseModel):
    """One trial.

    Attributes:
        own: it has the recipe's own values.
        score: of the last rung that it came to; none if it came to none.
        rungs: share of the recipe's epochs → score.
        seconds: of training and scoring.
        peak_bytes: the most memory that its process held.
        reason: why it failed.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    ending: Ending
    own: bool
    values: dict[str, Value]
    score: float | None
    rungs: dict[str, float]
    seconds: float
    peak_bytes: int
    reason: str | None


def records(study: optuna.Study, space: SearchSpace) -> list[TrialRecord]:
    """Every trial that began and ended, in order."""
    return [
        _record(trial, space)
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished()
    ]


def _record(trial: FrozenTrial, space: SearchSpace) -> TrialRecord:
    endings: dict[TrialState, Ending] = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "cut off" if was_cut_off(trial) else "failed",
    }
    whole = REDUCTION ** (space.rungs - 1)
    scores = {f"{step / whole:.3f}": score for step, score in trial.intermediate_values.items()}
    said = trial.user_attrs
    return TrialRecord(
        number=trial.number,
        ending=endings[trial.state],
        own=said.get(OWN, False),
        values=trial.params,
        score=trial.value if trial.value is not None else next(reversed(scores.values()), None),
        rungs=scores,
        seconds=said.get("seconds", 0.0),
        peak_bytes=said.get("peak_bytes", 0),
        reason=said.get(REASON),
    )


def write_tuning(study: optuna.Study, search: Search, out: Path) -> Manifest:
    """Write the artifact of a study.

    Raises:
        SettingsError: no trial came to its end.
    """
    trials = records(study, search.space)
    whole = [trial for trial in trials if trial.ending == "complete"]
    if not whole:
        reasons = sorted({trial.reason or trial.ending for trial in trials})
        raise SettingsError(
            f"none of {len(trials)} trials came to its end ({'; '.join(reasons) or 'no time'}); "
            "allow more time or trials, or mend the space, then run the step again: it goes on"
        )
    best = max(whole, key=lambda trial: (trial.score, -trial.number))
    own = next((trial for trial in whole if trial.own), None)
    measure = MEASURES[search.kind]
    start_artifact(out)
    write_json(out / TRIALS_NAME, [trial.model_dump(mode="json") for trial in trials])
    write_text_atomically(out / TABLE_NAME, table(trials, measure))
    write_text_atomically(out / BEST_NAME, best_recipe(search, best, own))
    shown = [
        (each.number, each.score, each.ending == "pruned")
        for each in trials
        if each.score is not None and each.ending in {"complete", "pruned"}
    ]
    plot = history_svg(shown, None if own is None else own.score, measure.replace("_", " "))
    write_text_atomically(out / HISTORY_NAME, plot)
    return write_manifest(out, TUNING_KIND, _facts(search, trials, best, own))


def best_recipe(search: Search, best: TrialRecord, own: TrialRecord | None) -> str:
    """The best trial's recipe as YAML, every setting written out.

    Raises:
        SettingsError: it is not a recipe, which would be our bug.
    """
    recipe = changed_recipe(search.recipe, {**best.values, "name": f"{search.recipe.name}-tuned"})
    before = "" if own is None else f"; untuned {own.score:.4f}"
    text = (
        f"# {search.recipe.name}, tuned. Trial {best.number}: {MEASURES[search.kind]} "
        f"{best.score:.4f} on the validation part{before}.\n{recipe_text(recipe)}"
    )
    if recipe_of(search.kind, text) != recipe:
        raise SettingsError(f"the best recipe does not read back as it was written:\n{text}")
    return text


def table(trials: Sequence[TrialRecord], measure: str) -> str:
    """The trials as a Markdown table, the best first, those without a score last."""
    keys = sorted({key for trial in trials for key in trial.values})
    head = ["trial", "ending", measure, *keys, "seconds", "peak GiB", "remark"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    rank = {"complete": 0, "pruned": 1, "failed": 2, "cut off": 3}
    for trial in sorted(trials, key=lambda t: (rank[t.ending], -(t.score or 0.0), t.number)):
        score = "–" if trial.score is None else f"{trial.score:.4f}"
        values = [
            f"{trial.values[key]:.4g}"
            if isinstance(trial.values.get(key), float)
            else str(trial.values.get(key, "–"))
            for key in keys
        ]
        remark = "the recipe's own values" if trial.own else trial.reason or ""
        cells = [str(trial.number), trial.ending, score, *values, f"{trial.seconds:.0f}"]
        cells += [f"{trial.peak_bytes / 2**30:.2f}", remark.replace("|", "/").replace("\n", " ")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _facts(
    search: Search, trials: Sequence[TrialRecord], best: TrialRecord, own: TrialRecord | None
) -> dict[str, Any]:
    endings = [trial.ending for trial in trials]
    return {
        "tuned": search.kind,
        "measure": MEASURES[search.kind],
        "part": "validation",
        "recipe": search.recipe.name,
        "recipe_digest": recipe_digest(search.recipe),
        "space": search.space.model_dump(mode="json"),
        "pruner": search.pruner,
        "seed": search.seed,
        "data_digest": search.data_digest,
        "start_digest": search.start_digest,
        "trials": {ending: endings.count(ending) for ending in sorted(set(endings))},
        "best": {"number": best.number, "score": best.score, "values": best.values},
        "untuned_score": None if own is None else own.score,
    }
