import sys

import numpy as np
import pytest

from bench import side_by_side
from bench.side_by_side import LAST_ROUNDS, Contestant, Running, competitors, key_of, measure_speed

WORKER = """
import numpy
from bench.competitor_worker import answers_apart, serve
channel = answers_apart()
print("noise that is no answer", flush=True)
serve(lambda texts, batch: {body}, channel)
"""


def contestant(name, body):
    return Contestant("fake", name, "", "", {"code": WORKER.format(body=body)})


@pytest.fixture(autouse=True)
def fake_commands(monkeypatch):
    monkeypatch.setattr(
        Contestant, "command", lambda self, _model: [sys.executable, "-c", self.settings["code"]]
    )


def test_a_contestant_answers_with_times_and_vectors(tmp_path):
    path = tmp_path / "vectors.npy"
    with Running(contestant("ones", "numpy.ones((len(texts), batch))"), "minilm") as running:
        seconds = running.ask(["a", "b"], batch_size=3, vectors=path)
        again = running.ask(["a"], batch_size=1)
    assert np.load(path).shape == (2, 3)
    assert seconds["wall_s"] >= 0
    assert set(seconds) == set(again) == {"wall_s", "cpu_s"}


def test_one_that_ends_says_why_and_the_others_go_on():
    good, bad = contestant("good", "numpy.ones((1, 1))"), contestant("bad", "no_such_name")
    rows = measure_speed([good, bad], ["a", "b", "c"], batch_sizes=(16, 32))
    assert len(rows[key_of(good)]["cpu_s"]) == 2
    assert rows[key_of(good)]["batch_size"] == [16, 32]
    assert "no_such_name" in rows[key_of(bad)]["failure"]
    assert rows[key_of(bad)]["cpu_s"] == []


def test_what_falls_behind_its_own_library_is_not_asked_again():
    ones = "numpy.ones((1, 1))"
    fast = contestant("fast", f"sum(range(10**6)) and {ones}")
    slow = contestant("slow", f"sum(range(10**7)) and {ones}")
    rows = measure_speed([fast, slow], ["a"], batch_sizes=(16, 8))
    assert rows[key_of(fast)]["batch_size"] == [16, 8]
    assert rows[key_of(slow)]["batch_size"] == [16]
    assert len(rows[key_of(fast)]["last_cpu_s"]) == LAST_ROUNDS
    assert rows[key_of(slow)]["last_cpu_s"] == []


def test_each_setting_is_called_by_a_name_of_its_own():
    names = [key_of(each) for each in competitors()]
    assert len(set(names)) == len(names)
    assert sum(each.int8 for each in competitors()) == 4
    assert side_by_side.WORKER.is_file()
