"""Optuna's study as tuning keeps it: a journal on disk, taken up again after a kill.

A trial that ends without a score is one of two: its values were to blame, and it has a ``reason``;
or it was ended from outside, by a kill or the wall cap, and is tried again by the next call.
"""

from pathlib import Path
from typing import Final, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from data.errors import SettingsError
from data.manifest import canonical_digest
from training.search_space import REDUCTION, AnyRecipe, SearchSpace, own_values

Pruner = Literal["median", "hyperband"]
REASON: Final = "reason"
OWN: Final = "own"
"""Marks the trial of the recipe's own values."""
_AGAIN: Final = "again"
_JOURNAL: Final = "journal.log"
_UNPRUNED_TRIALS: Final = 3
"""The median of fewer says nothing."""
_RANDOM_TRIALS: Final = 5
"""Before TPE has something to learn from."""


def open_study(work: Path, name: str, pruner: Pruner, *, rungs: int) -> optuna.Study:
    """The study whose journal lies in ``work``, made if there is none.

    Raises:
        SettingsError: there is no such pruner.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # our own lines say it once
    return optuna.create_study(
        study_name=name,
        storage=JournalStorage(JournalFileBackend(str(work / _JOURNAL))),
        direction="maximize",
        pruner=_pruner(pruner, rungs),
        load_if_exists=True,
    )


def _pruner(name: Pruner, rungs: int) -> optuna.pruners.BasePruner:
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(
            min_resource=1, max_resource=REDUCTION ** (rungs - 1), reduction_factor=REDUCTION
        )
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=_UNPRUNED_TRIALS)
    raise SettingsError(f"pruner is {name!r}; expected 'median' or 'hyperband'")


def take_up(study: optuna.Study, recipe: AnyRecipe, space: SearchSpace) -> None:
    """Go on from where an earlier call was: what it was at comes first.

    A new study begins with the recipe's own values, so that the best is never worse than they are.
    """
    before = study.get_trials(deepcopy=False)
    own = own_values(space, recipe)
    if not before and own is not None:
        study.enqueue_trial(dict(own), user_attrs={OWN: True})
    for trial in before:
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
    again = {trial.user_attrs.get(_AGAIN) for trial in before}
    for trial in study.get_trials(deepcopy=False):
        if was_cut_off(trial) and trial.number not in again:
            kept = {key: value for key, value in trial.user_attrs.items() if key == OWN}
            study.enqueue_trial(dict(trial.params), user_attrs={**kept, _AGAIN: trial.number})


def was_cut_off(trial: FrozenTrial) -> bool:
    """It was ended from outside: its values are not to blame."""
    return trial.state == TrialState.FAIL and REASON not in trial.user_attrs


def decided(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that ended with a score, pruned, or with a failure of their own."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and not was_cut_off(trial)
    ]


def propose(study: optuna.Study, spans: dict[str, BaseDistribution], *, seed: int) -> optuna.Trial:
    """The next trial, its values drawn.

    A sampler of its own for each: one that began again from its seed would, after a kill, propose
    the first values once more.
    """
    drawn = int(canonical_digest([seed, len(study.get_trials(deepcopy=False))])[:8], 16)
    study.sampler = optuna.samplers.TPESampler(seed=drawn, n_startup_trials=_RANDOM_TRIALS)
    return study.ask(spans)
