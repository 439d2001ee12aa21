import json
from types import SimpleNamespace

from bench import memory_model
from data.errors import EngineError
from serving.batching.calibrate import MemoryFigures


def test_engines_are_measured_as_tuning_does_and_one_that_fails_leaves_its_reason(
    tmp_path, monkeypatch
):
    asked = {}

    def measure_costs(folder, engine, **given):
        asked[engine] = given
        if engine == "bad":
            raise EngineError("it keeps its memory")
        figures = MemoryFigures(
            memory_p999_under=0, memory_median_error=0.1, memory_median_bound=1.2, held_out=40
        )
        return SimpleNamespace(
            figures=lambda: figures, engine="library", source="VmHWM", grid=[], held_out=[]
        )

    monkeypatch.setattr(memory_model, "measure_costs", measure_costs)
    monkeypatch.setattr(memory_model.os, "nice", lambda _more: 0)
    monkeypatch.setattr(memory_model, "embedding_folder", lambda _name: tmp_path)
    memory_model.main(str(tmp_path / "out.json"), "good,bad")
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["good"]["memory_median_error"] == 0.1
    assert found["bad"] == {"failure": "it keeps its memory"}
    assert asked["good"]["held_out"] == memory_model.HELD_OUT
    assert asked["good"]["threads"] == 1
