"""The alerts' rules name metrics that a gateway has, in the shape that Prometheus loads."""

import re
from pathlib import Path
from typing import Any

import httpx
import yaml

from serving.deployment import Deployment
from serving.gateway.app import create_app
from serving.gateway.settings import read_settings

ALERTS = Path(__file__).parents[3] / "serving" / "alerts.yaml"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]


def test_every_metric_of_a_rule_is_one_that_the_gateway_has(
    deployment: Deployment, fakes: Any, tmp_path: Path
) -> None:
    settings = read_settings({"MATJIP_STORE_URL": f"sqlite:///{tmp_path / 'store.db'}"})
    with fakes.serve(create_app(settings, deployment)) as url:
        page = httpx.get(f"{url}/metrics", timeout=30).text
    has = set(re.findall(r"^# TYPE (\S+) ", page, flags=re.MULTILINE))
    for rule in RULES:
        named = set(re.findall(r"matjip_\w+", rule["expr"] + rule["annotations"]["description"]))
        assert named <= has, rule["alert"]
        assert re.search(r"matjip_\w+", rule["expr"])


def test_the_file_has_the_shape_that_prometheus_loads() -> None:
    said = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    assert set(said) == {"groups"}
    for group in said["groups"]:
        assert set(group) == {"name", "rules"}
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    for rule in RULES:
        assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert re.fullmatch(r"[A-Za-z_]\w*", rule["alert"])
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
        assert rule["labels"]["severity"] in {"page", "ticket", "info"}
        assert set(rule["annotations"]) == {"summary", "description"}
        # A label that a rule's sum has taken away would be shown as nothing.
        kept = re.findall(r"by \(([^)]*)\)", rule["expr"])
        shown = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        known = {label.strip() for labels in kept for label in labels.split(",")}
        assert shown <= known | {"instance"}, rule["alert"]
