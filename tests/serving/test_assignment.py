import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import ExperimentError
from serving.deployment import Arm, Deployment
from serving.experiments.assignment import arm_of, bucket_of, uniformity_p, unit_hash

VECTORS = [
    ("salt-2026", "account-1"),
    ("salt-2026", "account-2"),
    ("salt-2027", "account-1"),
    ("salt-2026", "김맛집 🍜"),
    ("salt-2026", ""),
]
BUCKETS = [6152, 447, 8855, 6792, 9828]


def deployment(challenger: float) -> Deployment:
    names = {"champion": 1.0 - challenger, "challenger": challenger}
    return Deployment(
        experiment_id="e",
        salt="salt-2026",
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


@pytest.mark.parametrize(("vector", "bucket"), list(zip(VECTORS, BUCKETS, strict=True)))
def test_buckets_never_change(vector, bucket):
    """A change here deals every running experiment anew."""
    assert bucket_of(unit_hash(*vector)) == bucket


@given(st.text(), st.text())
def test_the_formula_is_the_published_one(salt, unit):
    digest = hashlib.sha256(salt.encode() + b"\x00" + unit.encode()).digest()
    assert unit_hash(salt, unit) == digest.hex()
    assert bucket_of(digest.hex()) == int.from_bytes(digest[:8], "big") % 10_000


def test_units_fall_evenly_under_several_salts():
    units = [f"account-{number}" for number in range(20_000)]
    assert all(uniformity_p(salt, units) > 1e-4 for salt in ("a", "b", "another salt"))


def test_units_that_are_one_unit_are_noticed():
    assert uniformity_p("a", ["the same"] * 1_000) < 1e-9
    with pytest.raises(ExperimentError, match="too few"):
        uniformity_p("a", ["x"] * 499)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 1.0])
def test_arms_get_their_share(share):
    some = deployment(share)
    hashes = [unit_hash(some.salt, str(number)) for number in range(20_000)]
    got = sum(arm_of(some, one).name == "challenger" for one in hashes) / len(hashes)
    assert got == pytest.approx(share, abs=0.015)
    assert share not in {0.0, 1.0} or got == share


def test_a_growing_share_keeps_who_already_met_the_challenger():
    small, large = deployment(0.1), deployment(0.4)
    hashes = [unit_hash("salt-2026", str(number)) for number in range(5_000)]
    before = {one for one in hashes if arm_of(small, one).name == "challenger"}
    after = {one for one in hashes if arm_of(large, one).name == "challenger"}
    assert before
    assert before < after
