from pathlib import Path

import pytest

from data.errors import SettingsError
from pipelines.cluster import GRAPHS
from pipelines.local import Home, new_run
from pipelines.make_targets import STEPS, make_target
from pipelines.placement import local_placement
from pipelines.steps import one_step

MAKEFILE = Path(__file__).resolve().parents[2] / "Makefile"


@pytest.fixture(scope="module")
def tasks() -> set[tuple[str, str]]:
    """Graph and step, of all graphs."""
    return {
        (name, task)
        for name, build in GRAPHS.items()
        for task in build(local_placement("0")).pipeline_spec.root.dag.tasks
        if not task.startswith("importer")
    }


def test_every_step_of_every_graph_has_a_target(tasks: set[tuple[str, str]]) -> None:
    assert {(graph, task) for graphs, task in STEPS.values() for graph in graphs} <= tasks
    # Graphs share steps, so a name is enough; `make tune` is the tuning graphs' own target.
    assert {task for _, task in STEPS.values()} | {"tune-model"} == {task for _, task in tasks}
    makefile = MAKEFILE.read_text(encoding="utf-8")
    for task in {task for _, task in tasks} | {"evaluate-held-out"}:
        assert f"\n{make_target(task)}: setup  ## " in makefile
    assert make_target("export-onnx") == "export"


def test_what_has_to_run_first_is_told_as_a_target(tmp_path: Path) -> None:
    run = new_run(Home(root=tmp_path), "train-encoder", {"recipe": "tiny", "tracking_uri": ""})
    with pytest.raises(SettingsError, match=r"'split-dataset'; run `make split` first"):
        run.artifact("split-dataset", "split")
    graph = GRAPHS["train-encoder"](local_placement("0"))
    for step, first in {"quantize-encoder": "export", "gate-model": "evaluate"}.items():
        with pytest.raises(SettingsError, match=f"run `make {first}` first"):
            one_step(graph, step, run, {})
