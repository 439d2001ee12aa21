from pathlib import Path

import pytest

from pipelines.cluster import GRAPHS
from pipelines.make_targets import STEPS, make_target
from pipelines.placement import local_placement

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
