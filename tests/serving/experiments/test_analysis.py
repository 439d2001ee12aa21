from serving.experiments.analysis import report_of
from serving.experiments.report import ExperimentReport

AB_ONLY = {"phases": [{"kind": "ab", "allocation": {"float": 0.5, "int8": 0.5}, "min_units": 100}]}


def report(it, **given):
    return report_of(it.url, it.name, clock=lambda: it.now_us, **given)


def test_a_better_arm_is_promoted_with_every_figure(trial):
    it = trial(AB_ONLY)
    it.open()
    it.serve(3_000, {"float": 0.7, "int8": 0.85})
    found = report(it)
    print(found.model_dump_json(indent=1)[:6000])
    assert found.decision == "promote", found.reason
    assert found.arm == "int8"
    assert 0 < found.low < found.difference < found.high
    assert ExperimentReport.model_validate_json(found.model_dump_json()) == found
