"""Which run a command goes on in, and whose deployments it takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from data.errors import SettingsError
from pipelines.arguments import compare_arguments, engine_arguments, train_arguments
from pipelines.deployments import begun, deployments_of, latest_deployments
from pipelines.local import Home, RunRecord, load_run, new_run
from pipelines.make_targets import EMBEDDING, ENCODER, ENGINE, LABELLED, TRAFFIC

_FIRST: Final = "run `make demo`, or the steps before, or name a run: RUN=…"
_FIRST_EMBEDDING: Final = "run `make embedding` first, or name a run: RUN=train-embedding-…"


def run_for(home: Home, graphs: Sequence[str], run_id: str | None) -> RunRecord:
    """The run that is named, else the last of these graphs, else a new one of the first.

    Args:
        home: where runs live.
        graphs: those that have the step (pipelines/make_targets.py).
        run_id: None where no run is named.

    Raises:
        SettingsError: the named run has no such step, or another graph has to run first.
    """
    named = load_run(home, run_id) if run_id else None
    if named is not None and named.graph in graphs:
        return named
    if graphs == ENGINE:  # of the last model, not of the one that had engines last
        model = named or _last_run(home, EMBEDDING, _FIRST_EMBEDDING)
        return new_run(home, graphs[0], engine_arguments(home, model))
    if graphs == TRAFFIC and named is not None:
        return new_run(home, graphs[0], compare_arguments(home, named))
    if named is not None:
        raise SettingsError(
            f"run {run_id!r} is of {named.graph!r}, which has no such step; name one of "
            f"{' or '.join(graphs)}: RUN=…, or leave RUN out"
        )
    # Steps that graphs share go on in the run that the classifier's next step takes.
    last = _last_of(home, ENCODER if graphs == LABELLED else graphs)
    if last is not None:
        return last
    if graphs == EMBEDDING:
        return _last_run(home, EMBEDDING, _FIRST_EMBEDDING)
    if graphs == TRAFFIC:
        return new_run(home, graphs[0], compare_arguments(home, _last_run(home, ENCODER, _FIRST)))
    return new_run(home, graphs[0], train_arguments(home))


def deployments_for(home: Home, run_id: str | None) -> dict[str, Path]:
    """What a named run deployed, else the last of each kind: options of the gateway, with files.

    Raises:
        SettingsError: there is no such run, or nothing was deployed.
    """
    named = load_run(home, run_id) if run_id else None
    return latest_deployments(home) if named is None else deployments_of(named)


def _last_of(home: Home, graphs: Sequence[str]) -> RunRecord | None:
    runs = [run for graph in graphs if (run := load_run(home, None, graph=graph))]
    return max(runs, key=begun, default=None)


def _last_run(home: Home, graphs: Sequence[str], mend: str) -> RunRecord:
    """The last run of these graphs.

    Raises:
        SettingsError: there is none; the message ends with ``mend``.
    """
    last = _last_of(home, graphs)
    if last is None:
        raise SettingsError(f"there is no run of {' or '.join(graphs)} yet; {mend}")
    return last
