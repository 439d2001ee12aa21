import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from data.errors import ExperimentError
from serving.experiments.buckets import (
    BucketRange,
    bucket_of,
    bucket_ranges,
    buckets_of,
    fnv1a32,
    uniformity_p,
)

# GrowthBook's conformance cases, spec 0.7.1, "hash" of version 2: packages/sdk-js/test/cases.json
# in github.com/growthbook/growthbook, tests/cases.json in github.com/growthbook/growthbook-python.
PUBLISHED = [
    ("seed", "a", 0.0505),
    ("seed", "b", 0.2696),
    ("foo", "ab", 0.2575),
    ("foo", "def", 0.2019),
    ("89123klj", "8952klfjas09ujkasdf", 0.124),
    ("90850943850283058242805", "123", 0.7516),
    ("()**(%$##$%#$#", '___)((*":&', 0.0128),
    # A character of two UTF-16 code units: test_hash_uses_utf16_code_units in growthbook-python
    # 4.0.0, a value of the SDK for JavaScript.
    ("", "😀", 0.4971),
]
# The same cases, "getBucketRange": coverage, shares, ranges. Left out are those whose weights do
# not add up or whose coverage lies outside 0 … 1: the SDK mends them, we refuse them.
PUBLISHED_RANGES = [
    (1.0, [0.5, 0.5], [(0, 0.5), (0.5, 1)]),
    (0.5, [0.5, 0.5], [(0, 0.25), (0.5, 0.75)]),
    (0.0, [0.5, 0.5], [(0, 0), (0.5, 0.5)]),
    (1.0, [0.25] * 4, [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]),
    (1.0, [0.4, 0.6], [(0, 0.4), (0.4, 1)]),
    (1.0, [0.2, 0.3, 0.5], [(0, 0.2), (0.2, 0.5), (0.5, 1)]),
    (0.2, [0.2, 0.3, 0.5], [(0, 0.04), (0.2, 0.26), (0.5, 0.6)]),
]
HASHED = st.text("0123456789abcdef", min_size=64, max_size=64)


def hashed(count: int, seed: int = 1) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return np.asarray([draw.bytes(32).hex() for _ in range(count)])


@pytest.mark.parametrize(("seed", "value", "share"), PUBLISHED)
def test_buckets_are_those_that_the_sdk_publishes(seed, value, share):
    assert bucket_of(seed, value) / 10_000 == share


def test_the_inner_hash_is_fnv_1a():
    """The values that FNV's authors test theirs with."""
    published = {"": 0x811C9DC5, "a": 0xE40C292C, "foobar": 0xBF9CF968}
    assert {text: fnv1a32(text) for text in published} == published


def test_buckets_never_change():
    """A change here deals every running experiment anew."""
    found = [
        bucket_of(f"seed-{number % 7}", hashlib.sha256(str(number).encode()).hexdigest())
        for number in range(1_000)
    ]
    assert found[:8] == [4601, 5122, 3472, 3195, 6610, 4037, 841, 6468]
    digest = hashlib.sha256(",".join(map(str, found)).encode()).hexdigest()
    assert digest == "9fccb17e572b1c8576a432c6bdc729837ddeb7e904d171858100770a94fc59b2"


@given(st.text(), st.lists(HASHED, max_size=5))
def test_many_at_once_are_the_same_as_one_by_one(seed, units):
    assert buckets_of(seed, units).tolist() == [bucket_of(seed, unit) for unit in units]


def test_many_at_once_in_several_pieces():
    units = hashed(40_000)
    some = [0, 16_383, 16_384, 32_768, 39_999]
    dealt = buckets_of("e", units)
    assert dealt.shape == (40_000,)
    assert dealt[some].tolist() == [bucket_of("e", unit) for unit in units[some].tolist()]
    assert buckets_of("e", units[::-2]).tolist() == dealt[::-2].tolist()
    assert buckets_of("e", units.astype("U80")).tolist() == dealt.tolist()
    assert buckets_of("e", []).tolist() == []


@given(st.text(), st.text())
def test_a_bucket_is_one_of_them_whatever_the_text(seed, value):
    assert 0 <= bucket_of(seed, value) < 10_000


@pytest.mark.parametrize(
    "wrong", ["", "0" * 63, "0" * 65, "0" * 63 + "g", "A" * 64, "account-1", "가" * 64, "0" * 128]
)
def test_what_is_no_hash_is_refused(wrong):
    with pytest.raises(ExperimentError, match=r"no hashed unit.*unit_hash"):
        buckets_of("e", ["0" * 64, wrong])


def test_units_fall_evenly_under_many_seeds():
    units = hashed(100_000)
    found = [uniformity_p(f"experiment-{number}", units, cells=1_000) for number in range(50)]
    # Under chance the p-values are themselves uniform.
    assert stats.kstest(found, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("cells", [2, 10, 50])
def test_two_seeds_deal_independently(cells):
    units = hashed(100_000)
    names = ["layer-1", "layer-2", "layer-3", "experiment-1", "experiment-2", "holdout", "h", "i"]
    dealt = {name: buckets_of(name, units) * cells // 10_000 for name in names}
    found = []
    for place, one in enumerate(names):
        for other in names[:place]:
            table = np.zeros((cells, cells))
            np.add.at(table, (dealt[one], dealt[other]), 1)
            found.append(stats.chi2_contingency(table, correction=False).pvalue)
    assert min(found) > 1e-3 / len(found)


def test_units_that_are_one_unit_are_noticed():
    assert uniformity_p("a", ["0" * 64] * 1_000) < 1e-9
    with pytest.raises(ExperimentError, match="too few"):
        uniformity_p("a", ["0" * 64] * 499)
    for cells in (0, 1, 7, -10, 20_000):
        with pytest.raises(ExperimentError, match=rf"cells={cells!r}"):
            uniformity_p("a", ["0" * 64] * 10, cells=cells)


@pytest.mark.parametrize(("coverage", "shares", "expected"), PUBLISHED_RANGES)
def test_ranges_are_those_that_the_sdk_publishes(coverage, shares, expected):
    found = [(one.start / 10_000, one.stop / 10_000) for one in bucket_ranges(shares, coverage)]
    assert np.asarray(found) == pytest.approx(np.asarray(expected), abs=1e-9)


@st.composite
def whole_shares(draw):
    cuts = sorted(draw(st.lists(st.integers(0, 10_000), max_size=5)))
    return [(b - a) / 10_000 for a, b in zip([0, *cuts], [*cuts, 10_000], strict=True)]


@given(whole_shares(), st.integers(0, 10_000), st.integers(0, 10_000))
def test_more_coverage_adds_units_and_moves_none(shares, one, other):
    less, more = sorted((one, other))
    small, large = bucket_ranges(shares, less / 10_000), bucket_ranges(shares, more / 10_000)
    for before, after, share in zip(small, large, shares, strict=True):
        assert before.start == after.start
        assert before.stop <= after.stop
        # A part of a bucket counts as a whole one, never more.
        assert -1e-6 < len(after) - share * more < 1
    edges = [edge for owned in large for edge in (owned.start, owned.stop)]
    assert edges == sorted(edges)


def test_what_floats_add_moves_no_bucket():
    assert 0.8 * 0.2 > 0.16
    assert bucket_ranges([0.2, 0.8], 0.8)[0] == BucketRange(0, 1_600)
    assert 0.1 + 0.2 > 0.3
    assert bucket_ranges([0.1, 0.2, 0.7])[2] == BucketRange(3_000, 10_000)


def test_full_coverage_leaves_no_bucket_out():
    for shares in ([0.1] * 10, [1 / 10_000] * 10_000, [0.3333, 0.3333, 0.3334], [1.0], [0.0, 1.0]):
        owned = [bucket for one in bucket_ranges(shares) for bucket in range(one.start, one.stop)]
        assert owned == list(range(10_000))


@pytest.mark.parametrize(
    ("shares", "coverage", "message"),
    [
        ([0.5, 0.4], 1.0, r"shares=\[0.5, 0.4\] add up to 0.9; make them"),
        ([0.5, 0.6], 1.0, r"add up to 1.1"),
        ([], 1.0, r"add up to 0.0"),
        ([1.5, -0.5], 1.0, r"shares\[0\]=1.5 is no share; take one between"),
        ([1.0, -0.0001], 1.0, r"shares\[1\]=-0.0001 is no share"),
        ([float("nan"), 1.0], 1.0, r"shares\[0\]=nan is no share"),
        ([1.0, float("inf")], 1.0, r"shares\[1\]=inf is no share"),
        ([1 / 3, 2 / 3], 1.0, r"shares\[0\]=0.333.* finer than 1/10000; round it"),
        ([0.5, 0.5], 1.01, r"coverage=1.01 is no share"),
        ([0.5, 0.5], -0.1, r"coverage=-0.1 is no share"),
        ([0.5, 0.5], float("nan"), r"coverage=nan is no share"),
        ([0.5, 0.5], 0.12345, r"coverage=0.12345 is finer than"),
    ],
)
def test_shares_and_coverage_that_cannot_be_dealt_are_refused(shares, coverage, message):
    with pytest.raises(ExperimentError, match=message):
        bucket_ranges(shares, coverage)


@pytest.mark.parametrize("wrong", [(-1, 5), (5, 4), (0, 10_001), (0.0, 5), (0, 0.5)])
def test_a_range_lies_within_the_buckets(wrong):
    with pytest.raises(ExperimentError, match="are no range; name whole numbers"):
        BucketRange(*wrong)
    assert len(BucketRange(0, 10_000)) == 10_000
    assert 5 not in BucketRange(5, 5)
