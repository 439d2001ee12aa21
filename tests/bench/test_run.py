import json
import time

from bench.figures import TARGETS
from bench.run import TURNS, Part, run_part


def test_every_part_has_a_file_that_a_figure_reads_or_the_report():
    names = [part.name for turn in TURNS for part in turn]
    assert len(set(names)) == len(names)
    assert {"engine_speeds", "side_by_side", "padding", "gateway_load"} <= set(names)
    assert {"memory_model", "admission"} <= set(names)
    assert len(TARGETS) == 12


def test_a_part_that_fails_leaves_its_reason(tmp_path):
    said = run_part(
        Part("broken", 60.0, ("bench.readme_table", "/no/such/file")),
        tmp_path,
        ends=time.monotonic() + 60,
    )
    assert "exit status 1" in said
    failure = json.loads((tmp_path / "broken.json").read_text())["failure"]
    assert "/no/such/file" in failure


def test_a_part_that_takes_too_long_is_ended(tmp_path):
    said = run_part(Part("slow", 0.05, ("bench.corpus",)), tmp_path, ends=time.monotonic() + 60)
    assert "not done after" in said


def test_a_part_without_time_is_not_begun(tmp_path):
    said = run_part(Part("late", 60.0, ("bench.corpus",)), tmp_path, ends=time.monotonic())
    assert said == "no time was left for it"
    assert json.loads((tmp_path / "late.json").read_text()) == {"failure": said}
