"""Graphs on one machine, through kfp.local: the cluster's components, a live view, a record.

Everything a run makes lies under one folder (``var/``):

    kfp/          artifacts of every step     kfp-cache/    what unchanged steps are taken from
    runs/         a record and a log per run; ``latest`` names the last one
    checkpoints/  of training that was cut off  mlflow/     the embedded tracking server's files
    models/       fetched by deployments      store.sqlite  exposures and outcomes
"""

import contextlib
import hashlib
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TextIO

from kfp import dsl, local
from kfp.dsl.graph_component import GraphComponent
from kfp.local import task_dispatcher
from kfp.local.orchestrator import task_executor
from kfp.local.status import Status
from pydantic import BaseModel, ConfigDict

from data.errors import MatjipError, SettingsError
from data.manifest import write_text_atomically
from pipelines.make_targets import make_target
from pipelines.progress import StepView

_IMPORTER = re.compile(r"importer(-\d+)?$")
CODE_PACKAGES = ("data", "serving", "training", "components")


class Home(BaseModel):
    """Where runs live."""

    model_config = ConfigDict(frozen=True)

    root: Path

    @property
    def tracking_uri(self) -> str:
        """The embedded MLflow."""
        return f"sqlite:///{self.root / 'mlflow' / 'mlflow.db'}"

    @property
    def store_url(self) -> str:
        """The embedded store of exposures and outcomes."""
        return f"sqlite:///{self.root / 'store.sqlite'}"

    def folder(self, name: str) -> Path:
        """A folder below the root, made if need be."""
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path


class StepRecord(BaseModel):
    """One step of a run, and where its outputs are."""

    name: str
    status: Literal["succeeded", "failed"]
    seconds: float
    cached: bool
    outputs: dict[str, Any] = {}


class RunRecord(BaseModel):
    """One run of a graph."""

    run_id: str
    graph: str
    status: Literal["running", "succeeded", "failed"]
    arguments: dict[str, Any]
    steps: list[StepRecord] = []

    def step(self, name: str) -> StepRecord | None:
        """The step's latest record."""
        return next((s for s in reversed(self.steps) if s.name == name), None)

    def artifact(self, step: str, output: str) -> Path:
        """The folder or file of a step's output.

        Raises:
            SettingsError: the run has no such step or output yet.
        """
        record = self.step(step)
        if record is None or output not in record.outputs:
            raise SettingsError(
                f"run {self.run_id!r} has no output {output!r} of step {step!r}; "
                f"run `make {make_target(step)}` first, or name another run with RUN=…"
            )
        return Path(record.outputs[output]["uri"])


class RunFailedError(MatjipError):
    """A step failed; the message holds the end of its log."""


def source_digest() -> str:
    """Hash of the code and locked dependencies that components run."""
    digest = hashlib.sha256()
    for package in CODE_PACKAGES:
        root = Path(str(resources.files(package)))
        for path in sorted(root.rglob("*")):
            if path.suffix in {".py", ".yaml", ".json", ".md"} and "gold" not in path.parts:
                digest.update(f"{package}/{path.relative_to(root).as_posix()}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def new_run(home: Home, graph: str, arguments: Mapping[str, Any]) -> RunRecord:
    """Begin a record."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")[:-3]
    return RunRecord(
        run_id=f"{graph}-{stamp}", graph=graph, status="running", arguments=dict(arguments)
    )


def save_run(home: Home, run: RunRecord) -> None:
    """Write the record, and make it the latest."""
    runs = home.folder("runs")
    write_text_atomically(runs / f"{run.run_id}.json", run.model_dump_json(indent=2) + "\n")
    write_text_atomically(runs / "latest", run.run_id + "\n")
    write_text_atomically(runs / f"latest-{run.graph}", run.run_id + "\n")


def load_run(home: Home, run_id: str | None, *, graph: str | None = None) -> RunRecord | None:
    """A run by id, or the latest (of a graph); none if there is none.

    Raises:
        SettingsError: the id is unknown.
    """
    runs = home.folder("runs")
    if run_id is None:
        pointer = runs / (f"latest-{graph}" if graph else "latest")
        if not pointer.is_file():
            return None
        run_id = pointer.read_text(encoding="utf-8").strip()
    path = runs / f"{run_id}.json"
    if not path.is_file():
        known = sorted(p.stem for p in runs.glob("*.json"))[-5:]
        raise SettingsError(f"no run {run_id!r} under {str(runs)!r}; the last ones are {known}")
    return RunRecord.model_validate_json(path.read_bytes())


@dataclass
class _Log:
    """Steps' output: every line to the run's log, the latest to the live view."""

    file: TextIO
    view: StepView
    _rest: str = field(default="", init=False)

    def write(self, text: str) -> int:
        self.file.write(text)
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                self.view.line(line.strip())
        return len(text)

    def flush(self) -> None:
        self.file.flush()

    def isatty(self) -> bool:
        return False


def _outputs(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: {"uri": value.uri, "metadata": dict(value.metadata), "type": type(value).__name__}
        if isinstance(value, dsl.Artifact)
        else value
        for key, value in values.items()
    }


@contextlib.contextmanager
def _observed(
    on_start: Callable[[str], None], on_end: Callable[[StepRecord], None]
) -> Iterator[None]:
    """Hear of each task that kfp.local runs.

    It offers no hooks, so two functions are wrapped; tests/pipelines/test_local.py fails if kfp
    changes them.
    """
    execute, dispatch = (
        task_executor.execute_single_task,
        task_dispatcher.run_single_task_implementation,
    )
    ran = threading.local()

    def observed_dispatch(*args: Any, **kwargs: Any) -> Any:
        ran.value = True
        return dispatch(*args, **kwargs)

    def observed_execute(**kwargs: Any) -> Any:
        name = kwargs["task_name"]
        label = kwargs["components"][kwargs["task_spec"].component_ref.name].executor_label
        if kwargs["executors"][label].WhichOneof("spec") == "importer":
            return execute(**kwargs)
        on_start(name)
        ran.value = False
        start = time.monotonic()
        outputs, status = execute(**kwargs)
        succeeded = status == Status.SUCCESS
        on_end(
            StepRecord(
                name=name,
                status="succeeded" if succeeded else "failed",
                seconds=round(time.monotonic() - start, 3),
                cached=succeeded and not ran.value,
                outputs=_outputs(outputs),
            )
        )
        return outputs, status

    task_executor.execute_single_task = observed_execute
    task_dispatcher.run_single_task_implementation = observed_dispatch
    try:
        yield
    finally:
        task_executor.execute_single_task = execute
        task_dispatcher.run_single_task_implementation = dispatch


def _last_error(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.strip() for line in lines if "Error: " in line and "Traceback" not in line]
    return errors[-1] if errors else "\n".join(lines[-5:])


def run_graph(
    graph: GraphComponent,
    arguments: Mapping[str, Any],
    run: RunRecord,
    home: Home,
    *,
    caching: bool = True,
    runner: Any = None,
) -> RunRecord:
    """Run a graph; the record is saved after every step.

    Args:
        graph: from pipelines/train_and_deploy.py or its siblings, or one step of it.
        arguments: the graph's parameters.
        run: the record to continue.
        home: where everything goes.
        caching: take unchanged steps from the cache.
        runner: a kfp.local runner; steps are subprocesses of this interpreter by default.

    Raises:
        RunFailedError: a step failed; the record says which.
    """
    local.init(
        runner=runner or local.SubprocessRunner(use_venv=False),
        pipeline_root=str(home.folder("kfp")),
        workspace_root=str(home.folder("kfp-workspace")),
        enable_caching=caching,
        cache_root=str(home.folder("kfp-cache")),
    )
    log = home.folder("runs") / f"{run.run_id}.log"
    save_run(home, run)

    def ended(step: StepRecord) -> None:
        view.end(step.name, step.seconds, ok=step.status == "succeeded", cached=step.cached)
        run.steps.append(step)
        save_run(home, run)

    tasks = [name for name in graph.pipeline_spec.root.dag.tasks if not _IMPORTER.match(name)]
    view = StepView(run.graph, tasks, sys.stdout)
    try:
        with (
            log.open("a", encoding="utf-8", buffering=1) as file,
            view,
            _observed(view.start, ended),
            contextlib.redirect_stdout(_Log(file, view)),
        ):
            try:
                graph(**arguments)
            except Exception:
                if not any(step.status == "failed" for step in run.steps):
                    traceback.print_exc(file=file)  # kfp's own trouble, not a step's
                raise
    except Exception as error:
        run.status = "failed"
        save_run(home, run)
        failed = next((s.name for s in run.steps if s.status == "failed"), "before any step")
        raise RunFailedError(
            f"run {run.run_id} failed at {failed}: {_last_error(log)}\n"
            f"The whole log is {log}; run the same command again to go on from there."
        ) from error
    run.status = "succeeded"
    save_run(home, run)
    return run
