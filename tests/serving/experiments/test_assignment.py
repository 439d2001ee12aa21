import hashlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import ExperimentError
from serving.dealing import LayerPlace, PhasePlan
from serving.deployment import Arm, Deployment
from serving.experiments.allocation import Allocation, ArmShare, Holdout, Layer, Namespace
from serving.experiments.assignment import (
    REASONS,
    Assignment,
    Dealer,
    allocation_of,
    assign,
    assign_all,
    unit_hash,
)
from serving.experiments.buckets import BucketRange, bucket_of

SALT = "salt-2026"
VECTORS = {
    ("matjip-2-vs-1", "salt-2026", "account-1"): 5356,
    ("matjip-2-vs-1", "salt-2026", "account-2"): 9074,
    ("matjip-2-vs-1", "salt-2027", "account-1"): 68,
    ("matjip-3-vs-2", "salt-2026", "account-1"): 1627,
    ("후기-2-vs-1", "salt-2026", "김맛집 🍜"): 6986,
    ("실험 🍜", "salt-2026", "account-1"): 4891,
    ("matjip-2-vs-1", "salt-2026", ""): 2410,
}
UNITS = [unit_hash(SALT, f"account-{number}") for number in range(20_000)]
THREE = (ArmShare("a", 0.2), ArmShare("b", 0.3), ArmShare("다", 0.5))
LAYER = Layer(
    "layer",
    (
        Namespace("one", (BucketRange(0, 2_000), BucketRange(8_000, 10_000))),
        Namespace("two", (BucketRange(2_000, 7_000),)),
    ),
)
OUTSIDE = ("holdout", "outside_layer", "outside_coverage")
HOLDOUT = Holdout("held out in 2026", 0.05)


def allocation(name="one", **changes) -> Allocation:
    given = {"experiment_id": name, "seed": f"seed of {name}", "arms": THREE}
    return Allocation(**(given | changes))


def deployment(challenger: float) -> Deployment:
    names = {"champion": 1.0 - challenger, "challenger": challenger}
    return Deployment(
        experiment_id="e",
        salt=SALT,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        arms=tuple(
            Arm(
                name=name,
                model_name="m",
                version=name,
                folder=Path("/m"),
                manifest_digest="0" * 64,
                evidence_id="e",
                share=round(share, 4),
            )
            for name, share in names.items()
        ),
    )


def met(some: Deployment) -> list[str]:
    dealer = Dealer(some)
    return [dealer.meet(unit)[0].name for unit in UNITS]


@pytest.mark.parametrize(("vector", "bucket"), VECTORS.items())
def test_buckets_never_change(vector, bucket):
    """A change here deals every running experiment anew."""
    seed, salt, unit = vector
    assert bucket_of(seed, unit_hash(salt, unit)) == bucket


@given(st.text(), st.text())
def test_a_unit_is_hashed_as_published(salt, unit):
    said = hashlib.sha256(salt.encode() + b"\x00" + unit.encode()).hexdigest()
    assert unit_hash(salt, unit) == said


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 1.0])
def test_arms_get_their_share(share):
    some = deployment(share)
    got = sum(name == "challenger" for name in met(some)) / len(UNITS)
    assert got == pytest.approx(share, abs=0.015)
    assert share not in {0.0, 1.0} or got == share


def test_a_growing_share_keeps_who_already_met_the_challenger():
    some, more = (
        {
            unit
            for unit, name in zip(UNITS, met(deployment(share)), strict=True)
            if name == "challenger"
        }
        for share in (0.1, 0.4)
    )
    assert some
    assert some < more


def test_a_deployment_is_an_allocation_that_covers_everybody():
    some = deployment(0.3)
    for unit in UNITS[:2_000]:
        arm, why = Dealer(some).meet(unit)
        assert (arm.name, why) == (assign(allocation_of(some), unit).arm, "assigned")


def test_shares_beyond_which_a_bucket_lies_are_refused():
    whole = deployment(0.5)
    broken = whole.model_copy(update={"arms": whole.arms[:1]})
    with pytest.raises(ExperimentError, match="add up to 1"):
        Dealer(broken)


def test_who_takes_no_part_meets_the_control_and_the_rest_as_the_phase_says():
    tester = UNITS[0]
    phase = PhasePlan(
        experiment="e",
        version=1,
        number=2,
        kind="canary",
        coverage=0.3,
        layer=LayerPlace(name="sentiment", start=0, stop=6_000),
        holdout=0.1,
        overrides={tester: "challenger"},
    )
    dealer = Dealer(deployment(0.5).model_copy(update={"phase": phase}))
    said = {unit: dealer.meet(unit) for unit in UNITS}
    assert said[tester][0].name == "challenger"
    assert said[tester][1] == "override"
    assert {why for _, why in said.values()} == set(REASONS)
    assert all(arm.name == "champion" for arm, why in said.values() if why in OUTSIDE)
    assigned = [arm.name for arm, why in said.values() if why == "assigned"]
    assert len(assigned) / len(UNITS) == pytest.approx(0.9 * 0.6 * 0.3, abs=0.015)
    assert assigned.count("challenger") / len(assigned) == pytest.approx(0.5, abs=0.03)


def test_everybody_is_sent_to_the_arm_that_is_forced():
    dealer = Dealer(deployment(0.5))
    said = [dealer.meet(unit, forced="challenger") for unit in UNITS[:50]]
    assert {(arm.name, why) for arm, why in said} == {("challenger", "forced")}
    with pytest.raises(ExperimentError, match=r"forced='third' is no arm; .*'challenger'"):
        dealer.meet(UNITS[0], forced="third")


def test_more_coverage_keeps_every_unit_in_its_arm():
    before: dict[str, str] = {}
    for coverage in (0.0, 0.01, 0.2, 0.5, 1.0):
        said = {unit: assign(allocation(coverage=coverage), unit) for unit in UNITS[:4_000]}
        now = {unit: one.arm for unit, one in said.items() if one.why == "assigned"}
        assert before.items() <= now.items()
        assert len(now) / 4_000 == pytest.approx(coverage, abs=0.03)
        assert all(one.why == "outside_coverage" for unit, one in said.items() if unit not in now)
        before = now
    assert len(before) == 4_000


def test_no_unit_meets_two_experiments_of_a_layer():
    one, two = (assign_all(allocation(name, layer=LAYER), UNITS) for name in ("one", "two"))
    assert not ((one.arm >= 0) & (two.arm >= 0)).any()
    assert np.mean(one.arm >= 0) == pytest.approx(0.4, abs=0.015)
    assert np.mean(two.arm >= 0) == pytest.approx(0.5, abs=0.015)
    # Whom the layer lets in says nothing of the arm.
    for said in (one, two):
        dealt = np.bincount(said.arm[said.arm >= 0], minlength=3) / (said.arm >= 0).sum()
        assert dealt == pytest.approx([0.2, 0.3, 0.5], abs=0.02)


def test_the_held_out_meet_no_experiment_and_stay_held_out():
    small, large = (
        {unit for unit in UNITS if assign(allocation(holdout=held), unit).why == "holdout"}
        for held in (HOLDOUT, Holdout(HOLDOUT.seed, 0.1))
    )
    assert len(small) / len(UNITS) == pytest.approx(0.05, abs=0.01)
    assert small < large
    other = allocation("two", holdout=HOLDOUT, layer=LAYER)
    assert {assign(other, unit).why for unit in small} == {"holdout"}


def test_an_override_comes_first_and_the_rest_in_their_order():
    held = next(unit for unit in UNITS if assign(allocation(holdout=HOLDOUT), unit).arm is None)
    full = allocation(
        holdout=HOLDOUT, layer=LAYER, coverage=0.5, overrides={held: "다", UNITS[0]: "a"}
    )
    assert assign(full, held) == Assignment("다", bucket_of("seed of one", held), "override")
    said = assign_all(full, UNITS)
    seen = {REASONS[code] for code in np.unique(said.why)}
    assert seen == set(REASONS)
    outside = [unit for unit in UNITS if bucket_of("layer", unit) in BucketRange(2_000, 8_000)]
    assert {assign(full, unit).why for unit in outside} <= {"override", "holdout", "outside_layer"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"coverage": 0.37},
        {"layer": LAYER},
        {"holdout": HOLDOUT, "coverage": 0.0},
        {"layer": LAYER, "holdout": HOLDOUT, "coverage": 0.8, "overrides": {UNITS[7]: "b"}},
    ],
)
def test_many_at_once_are_the_same_as_one_by_one(changes):
    some = allocation(**changes)
    said = assign_all(some, np.asarray(UNITS[:3_000]))
    for place, unit in enumerate(UNITS[:3_000]):
        arm = None if said.arm[place] < 0 else THREE[said.arm[place]].name
        one = Assignment(arm, int(said.bucket[place]), REASONS[said.why[place]])
        assert assign(some, unit) == one


def test_no_units_at_all_and_one():
    some = allocation(holdout=HOLDOUT, layer=LAYER, overrides={UNITS[0]: "a"})
    assert assign_all(some, []).arm.shape == (0,)
    assert assign_all(some, UNITS[:1]).arm.tolist() == [0]


@pytest.mark.parametrize("wrong", ["", "account-1", "0" * 63, "F" * 64, "0" * 64 + "\n"])
def test_a_unit_that_was_not_hashed_is_refused(wrong):
    for refused in (assign, lambda some, unit: assign_all(some, [unit])):
        with pytest.raises(ExperimentError, match=r"no hashed unit.*pass what unit_hash") as said:
            refused(allocation(), wrong)
        assert "account" not in str(said.value)
