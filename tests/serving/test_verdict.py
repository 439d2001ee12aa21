from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from data.errors import ExperimentError
from serving.deployment import Arm, Deployment
from serving.experiments.decision_rule import DecisionRule
from serving.experiments.hashes import hashes_of
from serving.experiments.units import UnitOutcomes
from serving.experiments.verdict import Verdict, decide

VERSIONS = {"champion": ("sentiment/1",), "challenger": ("sentiment/2",)}
RULE = DecisionRule(min_exposures_per_arm=100, tuned_for_units=1_000)


def deployment(share: float = 0.5) -> Deployment:
    arms = [("champion", "1", 1.0 - share), ("challenger", "2", share)]
    return Deployment(
        experiment_id="e",
        salt="a salt for tests",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        arms=tuple(
            Arm(
                name=name,
                model_name="sentiment",
                version=version,
                folder=Path("/m"),
                manifest_digest="0" * 64,
                evidence_id="e",
                share=part,
            )
            for name, version, part in arms
            if part
        ),
    )


def units(n=2_000, *, champion=0.7, challenger=0.7, share=0.5, missing=(0.0, 0.0), **changes):
    random = np.random.default_rng(17)
    on = random.random(n) < share
    reward = (random.random(n) < np.where(on, challenger, champion)).astype(np.float64)
    lost = random.random(n) < np.where(on, missing[1], missing[0])
    seen = (~lost).astype(np.int64)
    given = {
        "unit": hashes_of([f"{i:064x}" for i in range(n)], 32, what="unit"),
        "arm": on.astype(np.uint8),
        "arms": ("champion", "challenger"),
        "reward": np.where(lost, np.nan, reward),
        "exposures": np.ones(n, dtype=np.int64),
        "outcomes": seen,
        "labelled": seen,
        "failed": np.zeros(n, dtype=np.int64),
        "versions": VERSIONS,
    }
    return UnitOutcomes(**(given | changes))


def test_a_better_challenger_is_promoted_with_its_figures():
    verdict = decide(units(challenger=0.85), deployment(), RULE)
    assert verdict.decision == "promote"
    assert 0 < verdict.low < verdict.difference < verdict.high
    assert verdict.difference == pytest.approx(
        verdict.means["challenger"] - verdict.means["champion"], abs=0.01
    )
    assert sum(verdict.exposures.values()) == sum(verdict.outcomes.values()) == 2_000
    assert verdict.srm_p > 0.001
    assert len(verdict.sequence) <= 200
    assert verdict.sequence[-1].n == 2_000
    assert verdict.sequence[-1].low == verdict.low
    assert "Promote it" in verdict.reason
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


def test_a_worse_challenger_is_rolled_back():
    verdict = decide(units(challenger=0.5), deployment(), RULE)
    assert verdict.decision == "roll_back"
    assert verdict.high < 0
    assert "Roll it back" in verdict.reason


def test_equal_arms_stay_open_for_superiority_and_pass_with_a_margin():
    assert decide(units(8_000), deployment(), RULE).decision == "continue"
    with_margin = RULE.model_copy(update={"margin": 0.08})
    verdict = decide(units(8_000), deployment(), with_margin)
    assert verdict.decision == "promote"
    assert -0.08 < verdict.low < 0
    assert "accepted loss of 0.080" in verdict.reason


def test_a_loss_inside_the_margin_is_not_rolled_back():
    data = units(8_000, champion=0.75, challenger=0.70)
    assert decide(data, deployment(), RULE).decision == "roll_back"
    verdict = decide(data, deployment(), RULE.model_copy(update={"margin": 0.05}))
    assert verdict.decision == "continue"


def test_no_exposure_is_invalid():
    empty = units(0, versions={"champion": (), "challenger": ()})
    verdict = decide(empty, deployment(), RULE)
    assert verdict.decision == "invalid"
    assert "Nobody was answered" in verdict.reason
    assert verdict.exposures == {"champion": 0, "challenger": 0}
    assert verdict.srm_p is None


def test_too_little_data_continues():
    verdict = decide(units(150), deployment(), RULE)
    assert verdict.decision == "continue"
    assert "asks for 100" in verdict.reason
    assert verdict.low is None


@pytest.mark.parametrize("share", [0.4, 0.6, 0.0, 1.0])
def test_a_sample_ratio_mismatch_is_invalid(share):
    verdict = decide(units(share=share, challenger=0.9), deployment(), RULE)
    assert verdict.decision == "invalid"
    assert "instead of 50.0%" in verdict.reason
    assert verdict.srm_p < 0.001
    assert verdict.difference is None


def test_an_uneven_share_is_no_mismatch():
    assert decide(units(share=0.1), deployment(0.1), RULE).decision == "continue"


@pytest.mark.parametrize("missing", [(0.2, 0.2), (1.0, 1.0)])
def test_missing_outcomes_are_invalid(missing):
    verdict = decide(units(missing=missing, challenger=0.9), deployment(), RULE)
    assert verdict.decision == "invalid"
    assert "no outcome" in verdict.reason


def test_outcomes_that_go_missing_in_one_arm_are_invalid():
    rule = RULE.model_copy(update={"max_missing_share": 0.5})
    assert decide(units(missing=(0.1, 0.1)), deployment(), rule).decision == "continue"
    verdict = decide(units(missing=(0.02, 0.15), challenger=0.9), deployment(), rule)
    assert verdict.decision == "invalid"
    assert "more often for one model" in verdict.reason


def test_one_arm_that_loses_none_is_told_from_one_that_loses_some():
    verdict = decide(units(missing=(0.0, 0.06)), deployment(), RULE)
    assert verdict.decision == "invalid"
    assert "more often for one model" in verdict.reason


def test_a_bot_of_which_nothing_is_heard_is_one_unit():
    """6,000 answers of one bot lack an outcome: by answers 75% of all, by units 1 of 2,000."""
    data = units()
    data.exposures[5], data.outcomes[5], data.labelled[5] = 6_000, 0, 0
    data.reward[5] = np.nan
    assert decide(data, deployment(), RULE).decision == "continue"


def test_units_whose_every_request_failed_lack_no_outcome():
    data = units()
    data.exposures[:200] = data.outcomes[:200] = data.labelled[:200] = 0
    data.failed[:200], data.reward[:200] = 1, np.nan
    assert decide(data, deployment(), RULE).decision == "continue"


def test_no_answer_that_counts_yet_is_waited_for():
    rule = DecisionRule(settling_days=3.0, attribution_days=2.0, closed_windows_only=True)
    none = {"versions": {"champion": (), "challenger": ()}}
    verdict = decide(units(0, **none), deployment(), rule)
    assert verdict.decision == "continue"
    assert "first 3 days and waits 2 days" in verdict.reason
    with pytest.raises(ValidationError, match="how late an outcome may come"):
        DecisionRule(closed_windows_only=True)


def test_sparse_outcomes_that_are_allowed_wait_for_enough_units():
    rule = RULE.model_copy(update={"max_missing_share": 1.0})
    verdict = decide(units(missing=(0.95, 0.95)), deployment(), rule)
    assert verdict.decision == "continue"
    assert "has outcomes of" in verdict.reason


def test_a_model_that_changed_inside_a_deployment_is_invalid():
    mixed = VERSIONS | {"challenger": ("sentiment/2", "sentiment/3")}
    verdict = decide(units(challenger=0.9, versions=mixed), deployment(), RULE)
    assert verdict.decision == "invalid"
    assert "sentiment/3" in verdict.reason


def test_units_that_met_both_models_are_invalid():
    data = units()
    data.unit[10] = data.unit[11]
    verdict = decide(data, deployment(), RULE)
    assert verdict.decision == "invalid"
    assert "both models" in verdict.reason


def test_bare_rewards_do_not_count_as_right_sentiments():
    bare = units(labelled=np.zeros(2_000, dtype=np.int64), challenger=0.85)
    assert decide(bare, deployment(), RULE).decision == "invalid"
    rule = RULE.model_copy(update={"metric": "reward"})
    assert decide(bare, deployment(), rule).decision == "promote"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_to_compare_with_is_an_error(share):
    with pytest.raises(ExperimentError, match="needs two arms"):
        decide(units(), deployment(share) if not share else _all_to_challenger(), RULE)


def _all_to_challenger() -> Deployment:
    half = deployment()
    shares = {"champion": 0.0, "challenger": 1.0}
    arms = [arm.model_copy(update={"share": shares[arm.name]}) for arm in half.arms]
    return half.model_copy(update={"arms": tuple(arms)})


@pytest.mark.parametrize(
    "wrong",
    [{"margin": -0.1}, {"alpha": 0.0}, {"min_exposures_per_arm": 5}, {"surprise": 1}],
)
def test_a_wrong_rule_is_refused(wrong):
    with pytest.raises(ValidationError):
        DecisionRule.model_validate(wrong)


def test_a_decision_needs_an_interval():
    verdict = decide(units(150), deployment(), RULE)
    with pytest.raises(ValidationError, match="without an interval"):
        Verdict.model_validate(dict(verdict) | {"decision": "promote"})
