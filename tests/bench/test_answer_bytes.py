from bench.answer_bytes import measure
from bench.source_models import TOY


def test_every_way_of_writing_is_measured_beside_its_engine():
    measured = measure(shape=TOY, repeats=1)
    assert len(measured["parts"]) == 5
    for part in measured["parts"].values():
        assert 0.0 < part["share"] < 1.0
        assert part["write_ms"] > 0.0
        assert part["compute_ms"] > 0.0
    assert "64 texts" in measured["conditions"]
    assert "hidden size 32, 2 layers" in measured["conditions"]
