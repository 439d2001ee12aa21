from pathlib import Path

import pytest

from data.errors import SettingsError
from pipelines.cluster import GRAPHS
from pipelines.local import Home, new_run
from pipelines.placement import local_placement
from pipelines.steps import one_step


def test_what_has_to_run_first_is_told_as_a_target(tmp_path: Path) -> None:
    run = new_run(Home(root=tmp_path), "train-encoder", {"recipe": "tiny", "tracking_uri": ""})
    with pytest.raises(SettingsError, match=r"'split-dataset'; run `make split` first"):
        run.artifact("split-dataset", "split")
    graph = GRAPHS["train-encoder"](local_placement("0"))
    for step, first in {"quantize-encoder": "export", "gate-model": "evaluate"}.items():
        with pytest.raises(SettingsError, match=f"run `make {first}` first"):
            one_step(graph, step, run, {})


def test_what_a_run_lacks_can_be_given(tmp_path: Path) -> None:
    bare = new_run(Home(root=tmp_path), "train-encoder", {})
    graph = GRAPHS["train-encoder"](local_placement("0"))
    with pytest.raises(SettingsError, match="ARGS='--set source_digest=…'"):
        one_step(graph, "ingest-labels", bare, {"source": "here"})
    given = {"source": "here", "source_digest": 0}
    tasks = one_step(graph, "ingest-labels", bare, given).pipeline_spec.root.dag.tasks
    values = tasks["ingest-labels"].inputs.parameters
    assert values["source"].runtime_value.constant.string_value == "here"
    assert values["source_digest"].runtime_value.constant.string_value == "0"
