"""What an experiment says is checked as a whole, before anything begins."""

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.errors import ExperimentError, SettingsError
from data.settings import parse_settings
from serving.experiments.allocation import Allocation, ArmShare, allocate
from serving.experiments.assignment import assign, unit_hash
from serving.experiments.specification import (
    ExperimentSpecification,
    SplitPhase,
    read_specification,
    specification_of,
)

Agreed = Callable[..., dict[str, Any]]


def dealt(said: ExperimentSpecification, phase: SplitPhase) -> Allocation:
    shares = [ArmShare(name, share) for name, share in said.shares(phase).items()]
    return allocate(said.name, shares, said.plan(phase, version=1, number=1))


def read(values: Any) -> ExperimentSpecification:
    return specification_of(values, where="experiment")


def test_a_yaml_file_and_its_json_are_the_same_experiment(agreed: Agreed, tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(yaml.safe_dump(agreed(), allow_unicode=True), encoding="utf-8")

    found = read_specification(file)

    assert read(found.model_dump(mode="json")) == found
    assert (
        read(agreed({"hypothesis": "양이 많다고 느끼는 손님이 늘어난다 🍜"})).digest != found.digest
    )


def test_the_digest_does_not_depend_on_how_it_was_written(agreed: Agreed) -> None:
    turned = dict(reversed(list(agreed().items())))
    assert read(turned).digest == read(agreed()).digest
    assert read(agreed({"stopping": {"alpha": 0.05}})).digest == read(agreed()).digest


def test_a_metric_and_its_quantile_may_have_roles_of_their_own(agreed: Agreed) -> None:
    mean = {"name": "latency_ms", "direction": "decrease", "margin": 5.0}
    goals = read(agreed({"metrics.guardrails": [mean]})).metrics
    assert [goal.label for goal in goals.all] == [
        "sentiment_accuracy",
        "latency_ms",
        "latency_ms p95",
    ]
    twice = mean | {"quantile": 0.95}
    with pytest.raises(SettingsError, match=r"'latency_ms p95'. stand twice"):
        read(agreed({"metrics.guardrails": [twice]}))


def test_a_goal_without_a_quantile_says_nothing_of_one(agreed: Agreed) -> None:
    # Digests of experiments that were agreed before stay what they were.
    primary, signal = (
        read(agreed()).model_dump(mode="json")["metrics"][role] for role in ("primary", "signals")
    )
    assert "quantile" not in primary
    assert signal[0]["quantile"] == 0.95


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "Sentiment INT8"}, "name='Sentiment INT8'"),
        ({"hypothesis": "  "}, "hypothesis"),
        ({"unit": "cookie"}, "unit='cookie'"),
        ({"arms": [{"name": "float", "model": "models:/m/1"}]}, "at least 2"),
        ({"arms.1.model": "models:/matjip-sentiment@champion"}, "same model"),
        ({"arms.1.name": "float"}, "named .'float'. more than once"),
        ({"arms.1.model": "matjip-sentiment"}, "arms.1.model='matjip-sentiment'"),
        ({"arms.1.model": "models:/m/0"}, "arms.1.model"),
        ({"arms.1.prompt": "summary"}, "arms.1.prompt='summary'"),
        ({"metrics.primary.direction": "up"}, "metrics.primary.direction='up'"),
        ({"metrics.primary.margin": -0.1}, "metrics.primary.margin=-0.1"),
        ({"metrics.primary.margin": float("nan")}, "metrics.primary.margin=nan"),
        ({"metrics.primary.name": "error_rate"}, "error_rate.*one role"),
        (
            {"metrics.signals.0.name": "error_rate"},
            "'error_rate' is a share, so it has no quantile",
        ),
        ({"metrics.signals.0.quantile": 1.0}, "quantile=1.0"),
        ({"phases": []}, "phases"),
        ({"phases.0.kind": "dark"}, "phases.0"),
        ({"phases.0.mirrored": 0.0}, "mirrored=0.0"),
        ({"phases.1.allocation": {"float": 0.9, "int8": 0.05}}, "adds up to 0.95"),
        ({"phases.1.allocation": {"float": 1.0, "int8": 0.0}}, "'int8'.*share of 0"),
        ({"phases.1.allocation": {"float": 0.9, "bf16": 0.1}}, "names .'bf16', 'float'."),
        ({"phases.2.allocation": {"float": 0.99999, "int8": 0.00001}}, "finer than 1/10000"),
        ({"phases.2.coverage": 1.5}, "coverage=1.5"),
        ({"phases.2.min_units": 3}, "min_units=3"),
        ({"phases.2.kind": "canary"}, "end with the one 'ab'"),
        ({"stopping": {"alpha": 0.0}}, "stopping.alpha=0.0"),
        ({"stoping": {}}, "stoping"),
        ({"layer": {"name": "sentiment", "start": 5000, "stop": 5000}}, "start=5000 is not before"),
        ({"layer": {"name": "sentiment", "start": 0, "stop": 10001}}, "layer.stop=10001"),
        ({"holdout": 1.0}, "holdout=1.0"),
        ({"overrides": {"user-7": "int8"}}, "overrides"),
        ({"overrides": {"0" * 64: "fp4"}}, "'fp4'.*no arms"),
    ],
)
def test_what_is_wrong_is_named(agreed: Agreed, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        read(agreed(changes))


def test_all_that_is_wrong_is_named_at_once(agreed: Agreed) -> None:
    with pytest.raises(SettingsError) as caught:
        read(agreed({"owner": "", "unit": "cookie", "arms.0.model": "x"}))
    assert all(name in str(caught.value) for name in ("owner", "unit", "arms.0.model"))


def test_phases_out_of_order_are_refused(agreed: Agreed) -> None:
    values = agreed()
    values["phases"] = [values["phases"][1], values["phases"][0], values["phases"][2]]
    with pytest.raises(SettingsError, match="put shadows before canaries"):
        read(values)


def test_arms_may_differ_in_prompt_or_parameters_alone(agreed: Agreed) -> None:
    same = "models:/matjip-language@champion"
    changes = {"arms.0.model": same, "arms.1.model": same, "arms.1.prompt": "summary/2"}
    assert read(agreed(changes)).arms[1].prompt == "summary/2"
    warmer = {"arms.0.model": same, "arms.1.model": same, "arms.1.parameters": {"top-p": 0.9}}
    assert read(agreed(warmer)).arms[1].parameters == {"top-p": 0.9}


@pytest.mark.parametrize("values", [None, [], "text", 3, {"name": "a"}])
def test_what_is_no_experiment_is_refused(values: Any) -> None:
    with pytest.raises(SettingsError, match="mend these keys"):
        read(values)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_bytes(b"name: \xff\xfe")
    for path in (tmp_path / "none.yaml", broken, tmp_path):
        with pytest.raises(SettingsError, match=path.name):
            read_specification(path)
    broken.write_text("name: [", encoding="utf-8")
    with pytest.raises(SettingsError, match="not YAML"):
        read_specification(broken)


def test_a_strange_arm_is_named(agreed: Agreed) -> None:
    with pytest.raises(ExperimentError, match=r"no arm 'fp4'; it has \['float', 'int8'\]"):
        read(agreed()).arm("fp4")


def test_units_are_dealt_as_it_says(agreed: Agreed) -> None:
    tester, layer = "f" * 64, {"name": "sentiment", "start": 0, "stop": 6_000}
    said = read(agreed({"layer": layer, "holdout": 0.1, "overrides": {tester: "int8"}}))
    canary, comparison = said.phases[1:]
    assert isinstance(canary, SplitPhase)
    assert isinstance(comparison, SplitPhase)
    units = [unit_hash("a salt", f"user-{number}") for number in range(20_000)]

    small, large = (
        [assign(dealt(said, phase), unit) for unit in units] for phase in (canary, comparison)
    )

    met = [each for each in large if each.arm is not None]
    assert len(met) / len(units) == pytest.approx(0.9 * 0.6, abs=0.02)
    assert sum(each.arm == "int8" for each in met) / len(met) == pytest.approx(0.5, abs=0.02)
    assert all(
        after.arm == "int8"
        for before, after in zip(small, large, strict=True)
        if before.arm == "int8"
    )
    assert assign(dealt(said, canary), tester).why == "override"


def test_the_example_loads_and_shows_every_kind_of_phase() -> None:
    said = read_specification(Path(str(resources.files("serving.experiments") / "example.yaml")))
    assert [phase.kind for phase in said.phases] == ["shadow", "canary", "ab"]
    assert said.metrics.guardrails
    assert said.metrics.signals


def test_what_the_example_leaves_out_may_be_put_in() -> None:
    path = resources.files("serving.experiments") / "example.yaml"
    text = path.read_text(encoding="utf-8").replace("# layer:", "layer:")
    text = text.replace("# overrides: {<hash of a tester's unit>:", f"overrides: {{{'a' * 64}:")
    said = parse_settings(ExperimentSpecification, text, where="example")
    assert said.layer is not None
    assert said.overrides == {"a" * 64: "int8"}
