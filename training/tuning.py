"""Tuning: a recipe and a search space to the best recipe that some trials found.

Optuna's TPE proposes, each trial runs in a process of its own (training/trial.py), and what counts
is the score of the task on the validation part: never the loss, which other lengths or smoothings
make incomparable, and never the test part. A trial climbs rungs: whole trainings, with their own
schedules, each three times as long as the one before. It is pruned between them where others were
better after as much training. The recipe's own values come first, so that the best is never worse
than not tuning.

All that happens is kept in Optuna's journal under ``checkpoints``: a step that was killed goes on,
and one with a higher cap adds to what is there.

Source: TPE and the pruners as in Optuna 5; Hyperband (arXiv 1603.06560).
"""

import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import filelock
import optuna
from optuna.trial import FrozenTrial, TrialState

from data.artifacts import SPLIT_KIND, TARGETS_KIND
from data.errors import ArtifactError, DataUnfitError, SettingsError
from data.manifest import Manifest, read_manifest
from serving.language_folder import LANGUAGE_MODEL_KIND
from training.memory import check_memory, free_bytes
from training.search_space import (
    REDUCTION,
    Kind,
    changed_recipe,
    distributions,
    parse_search_space,
    recipe_of,
    recipe_text,
)
from training.trial import Job, Rung
from training.trial_process import TimeUpError, TrialFailedError, trial_process
from training.tuning_report import Search, write_tuning
from training.tuning_study import REASON, Pruner, decided, open_study, propose, take_up

_INPUTS: Final[dict[Kind, tuple[str, str]]] = {
    "encoder": (SPLIT_KIND, "encoder"),
    "language": (TARGETS_KIND, LANGUAGE_MODEL_KIND),
}
_WEIGHTS: Final = ".safetensors"
_GIVE_UP_AFTER: Final = 3
"""So many failures with no success: it is not the values."""
_PROCESS_BYTES: Final = 2**30
"""Torch, transformers and a trainer, before there is a model: 0.6 to 0.8 GiB measured."""
_COPIES: Final[dict[Kind, int]] = {"encoder": 5, "language": 1}
"""Of the weights: themselves, gradients, Adam's moments and a copy; an adapter's are small."""
_SLACK: Final = 1.1


@dataclass(frozen=True)
class _Plan:
    """What stays the same over all trials, and where they work."""

    search: Search
    data: Path
    start: Path
    work: Path
    weights_bytes: int


def tune(
    kind: Kind,
    recipe: str,
    space: str,
    *,
    data: Path,
    start: Path,
    out: Path,
    checkpoints: Path,
    trials: int,
    wall_minutes: float,
    pruner: Pruner = "median",
    seed: int = 0,
) -> Manifest:
    """Look for better settings than a recipe has.

    Args:
        kind: which trainer: the classifier's, or the language model's.
        recipe: YAML text; what the space does not name stays as it is.
        space: YAML text (training/search_space.py).
        data: of kind split for ``encoder``, of kind targets for ``language``.
        start: of kind encoder, or language_model.
        out: folder for the result (training/tuning_report.py).
        checkpoints: survives a kill.
        trials: how many at most, failed and pruned ones included.
        wall_minutes: how long at most, counted from this call; the trial that then runs is ended,
            and taken up again by the next call.
        pruner: when a trial is given up between its rungs.
        seed: of the proposals.

    Raises:
        SettingsError: recipe, space or a cap is wrong, memory is too small, or no trial succeeded.
        ArtifactError: an input is missing or altered, or another process tunes the same.
        DataUnfitError: three trials failed and none succeeded.
    """
    if trials < 1 or not 0 < wall_minutes < math.inf:
        raise SettingsError(
            f"trials={trials!r}, wall_minutes={wall_minutes!r}; allow at least one trial and some "
            "time"
        )
    deadline = time.monotonic() + wall_minutes * 60
    parsed = recipe_of(kind, recipe)
    within = parse_search_space(space, kind, parsed)
    inputs = [read_manifest(data, _INPUTS[kind][0]), read_manifest(start, _INPUTS[kind][1])]
    search = Search(kind, parsed, within, pruner, seed, inputs[0].digest, inputs[1].digest)
    weights = [size.bytes for name, size in inputs[1].files.items() if name.endswith(_WEIGHTS)]
    work = (checkpoints / f"tuning-{search.identity[:16]}").resolve()
    plan = _Plan(search, data.resolve(), start.resolve(), work, sum(weights))
    with _alone(work):
        study = open_study(work, search.identity, pruner, rungs=within.rungs)
        take_up(study, parsed, within)
        if _run(study, plan, trials, deadline):
            for leftover in ("models", "checkpoints"):
                shutil.rmtree(work / leftover, ignore_errors=True)
        return write_tuning(study, search, out)


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    work.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(work / "tuning.lock", timeout=0):
            yield
    except filelock.Timeout as error:
        raise ArtifactError(
            f"another process tunes in {str(work)!r}; wait for it, or name other checkpoints"
        ) from error


def _run(study: optuna.Study, plan: _Plan, most: int, deadline: float) -> bool:
    """Run trials up to a cap; False where the time was over before."""
    spans = distributions(plan.search.space, plan.search.recipe)
    while len(before := decided(study)) < most:
        _give_up(before)
        if time.monotonic() >= deadline:
            return False
        check_memory(_need(plan, before), free_bytes(), what="a trial")
        if not _one_trial(study, plan, propose(study, spans, seed=plan.search.seed), deadline):
            return False
    return True


def _give_up(before: list[FrozenTrial]) -> None:
    reasons = [trial.user_attrs[REASON] for trial in before if trial.state == TrialState.FAIL]
    if len(reasons) == len(before) >= _GIVE_UP_AFTER:
        raise DataUnfitError(
            f"all {len(reasons)} trials failed, the first with: {reasons[0]}; mend that, or narrow "
            "the space, then run the step again"
        )


def _need(plan: _Plan, before: list[FrozenTrial]) -> int:
    """Bytes that the next trial is reckoned to hold; once some have run, the most they held."""
    if plan.search.space.memory_gib is not None:
        return int(plan.search.space.memory_gib * 2**30)
    measured = [trial.user_attrs.get("peak_bytes", 0) for trial in before]
    if any(measured):
        return int(max(measured) * _SLACK)
    return _PROCESS_BYTES + _COPIES[plan.search.kind] * plan.weights_bytes


def _one_trial(study: optuna.Study, plan: _Plan, trial: optuna.Trial, deadline: float) -> bool:
    """Run a trial, and tell the study how it went; False where the time was over before its end."""
    shown = ", ".join(f"{key}={value}" for key, value in trial.params.items())
    print(f"trial {trial.number}: {shown}", flush=True)  # a component's standard output is its log
    try:
        score = _climb(plan, trial, deadline)
    except TimeUpError:
        print(f"trial {trial.number}: ended, the time is over", flush=True)
        study.tell(trial, state=TrialState.FAIL)
        return False
    except (TrialFailedError, SettingsError) as error:
        print(f"trial {trial.number}: failed, {error}", flush=True)
        trial.set_user_attr(REASON, str(error))
        study.tell(trial, state=TrialState.FAIL)
    else:
        if score is None:
            print(f"trial {trial.number}: pruned", flush=True)
        study.tell(trial, score, state=TrialState.PRUNED if score is None else None)
    return True


def _climb(plan: _Plan, trial: optuna.Trial, deadline: float) -> float | None:
    """The score of the last rung; None where the trial was pruned before it."""
    recipe = changed_recipe(plan.search.recipe, trial.params)
    job = Job(
        kind=plan.search.kind,
        recipe=recipe_text(recipe),
        data=plan.data,
        start=plan.start,
        work=plan.work,
        shares=plan.search.space.shares,
        scored_examples=plan.search.space.scored_examples,
    )
    scores: list[float] = []
    with trial_process(job, plan.work / "trials" / f"{trial.number:04}") as running:
        for number in range(plan.search.space.rungs):
            rung = running.next_rung(deadline)
            scores.append(rung.score)
            _record(trial, rung, number, plan.search.space.rungs)
            if number + 1 == plan.search.space.rungs:
                return rung.score
            if trial.should_prune():
                return None
            running.go_on()
    return None


def _record(trial: optuna.Trial, rung: Rung, number: int, rungs: int) -> None:
    trial.report(rung.score, step=REDUCTION**number)
    seconds = trial.user_attrs.get("seconds", 0.0) + rung.seconds
    trial.set_user_attr("seconds", seconds)
    trial.set_user_attr("peak_bytes", rung.peak_bytes)
    print(
        f"trial {trial.number}: rung {number + 1} of {rungs}, score {rung.score:.4f}, "
        f"{rung.seconds:.0f} s",
        flush=True,
    )
