import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl
from kfp.local import task_dispatcher
from kfp.local.orchestrator import task_executor

from data.errors import SettingsError
from pipelines.local import (
    Home,
    RunFailedError,
    RunRecord,
    load_run,
    new_run,
    run_graph,
    save_run,
    source_digest,
)


@dsl.component(base_image="python-test", install_kfp_package=False)
def add_one(number: int) -> int:
    print("adding", number)
    return number + 1


@dsl.component(base_image="python-test", install_kfp_package=False)
def break_down(number: int) -> int:
    raise ValueError(f"number={number!r} is not wanted")


@dsl.pipeline(name="twice")
def twice(number: int) -> None:
    first = add_one(number=number)
    add_one(number=first.output)


@dsl.pipeline(name="breaks")
def breaks(number: int) -> None:
    first = add_one(number=number)
    break_down(number=first.output)


def test_kfp_still_has_what_is_wrapped() -> None:
    names = inspect.signature(task_executor.execute_single_task).parameters
    assert {"task_name", "task_spec", "components", "executors"} <= set(names)
    assert callable(task_dispatcher.run_single_task_implementation)


def test_steps_are_recorded_and_unchanged_ones_come_from_the_cache(tmp_path: Path) -> None:
    home = Home(root=tmp_path)
    before = task_executor.execute_single_task
    first = run_graph(twice, {"number": 3}, new_run(home, "twice", {"number": 3}), home)
    assert [(s.name, s.cached) for s in first.steps] == [("add-one", False), ("add-one-2", False)]
    assert first.step("add-one-2").outputs == {"Output": 5}
    again = run_graph(twice, {"number": 3}, new_run(home, "twice", {"number": 3}), home)
    assert [s.cached for s in again.steps] == [True, True]
    other = run_graph(twice, {"number": 4}, new_run(home, "twice", {"number": 4}), home)
    assert [s.cached for s in other.steps] == [False, False]
    assert task_executor.execute_single_task is before
    assert "adding 3" in (tmp_path / "runs" / f"{first.run_id}.log").read_text(encoding="utf-8")
    assert load_run(home, None).run_id == other.run_id


def test_a_failure_names_the_step_and_what_was_done_is_kept(tmp_path: Path) -> None:
    home = Home(root=tmp_path)
    run = new_run(home, "breaks", {})
    with pytest.raises(RunFailedError, match=r"break-down: ValueError: number=2 is not wanted"):
        run_graph(breaks, {"number": 1}, run, home)
    kept = load_run(home, run.run_id)
    assert kept.status == "failed"
    assert [(s.name, s.status) for s in kept.steps] == [
        ("add-one", "succeeded"),
        ("break-down", "failed"),
    ]
    again = new_run(home, "breaks", {})
    with pytest.raises(RunFailedError):
        run_graph(breaks, {"number": 1}, again, home)
    assert again.steps[0].cached


def test_unknown_runs_and_outputs_are_told(tmp_path: Path) -> None:
    home = Home(root=tmp_path)
    assert load_run(home, None) is None
    with pytest.raises(SettingsError, match="no run 'x'"):
        load_run(home, "x")
    run = RunRecord(run_id="r", graph="g", status="running", arguments={})
    save_run(home, run)
    with pytest.raises(SettingsError, match="make split`"):
        run.artifact("split-dataset", "split")


def test_the_digest_follows_the_code() -> None:
    assert source_digest() == source_digest()
    assert len(source_digest()) == 16


def test_a_run_is_plain_json(tmp_path: Path) -> None:
    home = Home(root=tmp_path)
    run = new_run(home, "twice", {"number": 1})
    save_run(home, run)
    written: dict[str, Any] = json.loads((tmp_path / "runs" / f"{run.run_id}.json").read_bytes())
    assert written["arguments"] == {"number": 1}
