import runpy
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "bench" / "answer_bytes.py"


def test_every_way_of_writing_is_measured_beside_its_engine():
    bench = runpy.run_path(str(SCRIPT), run_name="answer_bytes")
    measured = bench["measure"](hidden_size=64, layers=1, repeats=1)
    assert len(measured["parts"]) == 5
    for part in measured["parts"].values():
        assert 0.0 < part["share"] < 1.0
        assert part["write_ms"] > 0.0
        assert part["compute_ms"] > 0.0
    assert "64 texts" in measured["conditions"]
    lengths = [len(window) for window in bench["review_windows"]()]
    assert 30 < sum(lengths) / len(lengths) < 50
    assert max(lengths) <= 128
