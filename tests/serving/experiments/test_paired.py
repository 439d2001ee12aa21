import json

import numpy as np
import pytest

from data.errors import ExperimentError
from serving.experiments.analysis import report_of
from serving.experiments.goals import MetricGoal
from serving.experiments.inference.exact import sign_test
from serving.experiments.inference.fixed_looks import paired_bootstrap
from serving.experiments.paired import Pair, add_paired, read_pairs

GOAL = MetricGoal(name="macro_f1", direction="increase", margin=0.01)


@pytest.fixture
def report(trial):
    it = trial({"phases": [{"kind": "ab", "allocation": {"float": 0.5, "int8": 0.5}}]})
    it.open()
    return report_of(it.url, it.name, clock=lambda: it.now_us)


def test_a_replay_is_the_bootstrap_of_its_pairs(report):
    random = np.random.default_rng(2)
    ours = random.random(120)
    theirs = np.clip(ours + 0.05 + random.normal(0.0, 0.05, 120), 0.0, 1.0)
    pairs = [
        Pair(item=f"리뷰-{n}", control=a, arm=b)
        for n, (a, b) in enumerate(zip(ours.tolist(), theirs.tolist(), strict=True))
    ]
    found = add_paired(report, "int8", pairs, source="replay", goal=GOAL)
    row = found.paired[0]
    wanted = paired_bootstrap(ours, theirs, alpha=0.05, draws=10_000, seed=0)
    assert (row.difference, row.low, row.high) == (wanted.estimate, wanted.low, wanted.high)
    assert (row.method, row.reading, row.units) == ("bootstrap", "better", (120, 120))
    assert row.p < 0.01
    assert (report.paired, found.decision) == ((), report.decision)
    twice = add_paired(found, "int8", pairs, source="replay", goal=GOAL)
    assert len(twice.paired) == 2


def test_preferences_are_the_sign_test_of_those_that_were_decided(report):
    said = [(0.0, 1.0)] * 30 + [(1.0, 0.0)] * 10 + [(0.5, 0.5)] * 7
    pairs = [Pair(item=str(n), control=a, arm=b) for n, (a, b) in enumerate(said)]
    row = add_paired(report, "int8", pairs, source="preference").paired[0]
    wanted = sign_test(30, 10, 7, alpha=0.05)
    assert row.p == wanted.p
    assert row.low == pytest.approx(2 * wanted.low - 1)
    assert row.difference == pytest.approx(0.5)
    assert row.reading == "better"
    assert "승 30, 패 10, 무 7" in row.note.ko


def test_pairs_are_read_from_lines_of_json(tmp_path):
    path = tmp_path / "pairs.jsonl"
    lines = [{"item": "리뷰-1", "control": 0.5, "arm": 1.0}, {"item": "b", "control": 0, "arm": 1}]
    path.write_text("\n\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    assert [pair.item for pair in read_pairs(path)] == ["리뷰-1", "b"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2 of .* is no pair"),
        ('{"item": "a", "control": 1}', "arm: Field required"),
        ('{"item": "a", "control": 1, "arm": "좋다"}', "arm: "),
        ('{"item": "a", "control": 1, "arm": NaN}', "line 2"),
        ('{"item": "", "control": 1, "arm": 1}', "item: "),
        ('{"item": "a", "control": 1, "arm": 1, "text": "맛집"}', "text: "),
        ('{"item": "first", "control": 1, "arm": 1}', "'first' stands twice"),
    ],
)
def test_a_line_that_is_no_pair_is_told(tmp_path, line, says):
    path = tmp_path / "pairs.jsonl"
    path.write_text(f'{{"item": "first", "control": 1, "arm": 0}}\n{line}\n', encoding="utf-8")
    with pytest.raises(ExperimentError, match=says):
        read_pairs(path)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ExperimentError, match="cannot read the pairs"):
        read_pairs(tmp_path / "none.jsonl")


def test_what_cannot_be_compared_is_told(report):
    two = [Pair(item=str(n), control=0.2, arm=0.4) for n in range(2)]
    with pytest.raises(ExperimentError, match="arm='float' is no challenger"):
        add_paired(report, "float", two, source="replay", goal=GOAL)
    with pytest.raises(ExperimentError, match="1 pairs say nothing"):
        add_paired(report, "int8", two[:1], source="replay", goal=GOAL)
    with pytest.raises(ExperimentError, match="needs its goal"):
        add_paired(report, "int8", two, source="replay")
    with pytest.raises(ExperimentError, match="a preference is 1 and 0"):
        add_paired(report, "int8", two, source="preference")
    with pytest.raises(ExperimentError, match="stands twice"):
        add_paired(report, "int8", [two[0], two[0]], source="replay", goal=GOAL)
