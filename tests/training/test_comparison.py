import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from data.errors import ArtifactError, ExperimentError, SettingsError
from data.manifest import read_manifest, write_manifest
from serving.deployment import Arm, Deployment, write_deployment
from serving.experiments.store import ExperimentStore, Exposure, Feedback
from serving.registry.arms import DEPLOYMENT_KIND
from training.comparison import COMPARISON_KIND, compare_arms
from training.delivery import promote_candidate

RULE = "{margin: 0.1, min_exposures_per_arm: 100, tuned_for_units: 1000}"
ANSWER = json.dumps({"sentiment": {"label": "positive"}}).encode()


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    folder = tmp_path / "deployment"
    folder.mkdir()
    arms = tuple(
        Arm(
            name=name,
            model_name="sentiment",
            version=version,
            folder=Path("models") / version,
            manifest_digest=version * 64,
            evidence_id=f"evidence-{version}",
            share=0.5,
        )
        for name, version in (("champion", "1"), ("challenger", "2"))
    )
    deployed = Deployment(
        experiment_id="e",
        salt="a salt for tests",
        arms=arms,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    write_deployment(folder / "deployment.json", deployed)
    write_manifest(folder, DEPLOYMENT_KIND, {"status": "ok"})
    return folder


def _serve(deployment: Path, url: str, units: int, *, right: dict[str, float]) -> None:
    """Units that met one arm each; every n-th answer is wrong, as ``right`` says."""
    deployed = json.loads((deployment / "deployment.json").read_bytes())
    store = ExperimentStore(url)
    seen = {"champion": 0, "challenger": 0}
    shown, said = [], []
    for number in range(units):
        arm = ("champion", "challenger")[number % 2]
        seen[arm] += 1
        good = int(seen[arm] * right[arm]) > int((seen[arm] - 1) * right[arm])
        shown.append(
            Exposure(
                request_id=f"r{number}",
                item=0,
                experiment_id="e",
                deployment_id=deployed["deployment_id"],
                unit=f"{number:064x}",
                arm=arm,
                model_version=f"sentiment/{number % 2 + 1}",
                text_sha256="0" * 64,
                prediction=ANSWER,
                latency_ms=1.0,
                created_at_us=number,
            )
        )
        true = "positive" if good else "negative"
        said.append(Feedback(f"r{number}", 0, number + 1, sentiment=true))
    store.write(shown)
    store.write([], said)
    store.close()


def test_equal_arms_are_promoted_within_the_margin(deployment: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.sqlite'}"
    _serve(deployment, url, 3000, right={"champion": 0.8, "challenger": 0.8})
    manifest = compare_arms(
        deployment, store_url=url, rule=RULE, traffic="<b>a test</b>", out=tmp_path / "c"
    )
    assert manifest.kind == COMPARISON_KIND
    assert manifest.facts["decision"] == "promote"
    assert manifest.facts["low"] > -0.1
    assert read_manifest(tmp_path / "c") == manifest
    page = (tmp_path / "c" / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "&lt;b&gt;a test&lt;/b&gt;" in page


def test_a_worse_challenger_is_rolled_back(deployment: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.sqlite'}"
    _serve(deployment, url, 3000, right={"champion": 0.9, "challenger": 0.5})
    facts = compare_arms(
        deployment, store_url=url, rule=RULE, traffic="a test", out=tmp_path / "c"
    ).facts
    assert facts["decision"] == "roll_back"


def test_outcomes_later_than_agreed_do_not_count(deployment: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.sqlite'}"
    _serve(deployment, url, 3000, right={"champion": 0.8, "challenger": 0.8})  # 1 µs later
    rule = RULE.replace("}", ", attribution_days: 1.0e-12}")
    facts = compare_arms(
        deployment, store_url=url, rule=rule, traffic="a test", out=tmp_path / "c"
    ).facts
    assert facts["decision"] == "invalid"
    assert facts["outcomes"] == {"champion": 0, "challenger": 0}


def test_open_windows_and_unsettled_units_wait(deployment: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.sqlite'}"
    _serve(deployment, url, 3000, right={"champion": 0.8, "challenger": 0.8})  # in 1970
    ages = "attribution_days: 36500, closed_windows_only: true"
    for index, (more, decision) in enumerate(
        [
            (ages, "continue"),
            (ages.replace("36500", "1"), "promote"),
            ("settling_days: 1", "continue"),
        ]
    ):
        facts = compare_arms(
            deployment,
            store_url=url,
            rule=RULE.replace("}", f", {more}}}"),
            traffic="a test",
            out=tmp_path / f"{index}",
        ).facts
        assert facts["decision"] == decision


def test_an_empty_store_decides_nothing(deployment: Path, tmp_path: Path) -> None:
    facts = compare_arms(
        deployment,
        store_url=f"sqlite:///{tmp_path / 'store.sqlite'}",
        rule=RULE,
        traffic="a test",
        out=tmp_path / "c",
    ).facts
    assert facts["decision"] in {"continue", "invalid"}
    assert facts["low"] is None


def test_a_wrong_rule_and_a_missing_deployment_are_told(deployment: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.sqlite'}"
    with pytest.raises(SettingsError, match=r"margin.*surprise|surprise.*margin"):
        compare_arms(
            deployment,
            store_url=url,
            rule="{margin: 3, surprise: 1}",
            traffic="",
            out=tmp_path / "c",
        )
    with pytest.raises(ArtifactError):
        compare_arms(tmp_path, store_url=url, rule="", traffic="", out=tmp_path / "c")


def test_a_verdict_about_another_deployment_moves_nothing(
    deployment: Path, tmp_path: Path, migrated_database: Path
) -> None:
    out = tmp_path / "comparison"
    out.mkdir()
    verdict = {
        "decision": "promote",
        "reason": "r",
        "deployment_id": "another",
        **dict.fromkeys(("srm_p", "difference", "low", "high"), 0.5),
    }
    (out / "verdict.json").write_text(json.dumps(verdict), encoding="utf-8")
    write_manifest(out, COMPARISON_KIND, {"decision": "promote"})
    with pytest.raises(ExperimentError, match="another"):
        promote_candidate(
            f"sqlite:///{migrated_database}",
            comparison=out,
            deployment=deployment,
            out=tmp_path / "promotion",
        )
    assert not (tmp_path / "promotion").exists()
