import pytest

from data.errors import ExperimentError
from serving.experiments.allocation import Allocation, ArmShare, Holdout, Layer, Namespace
from serving.experiments.buckets import BucketRange

HALVES = (ArmShare("champion", 0.5), ArmShare("challenger", 0.5))
UNIT = "0" * 64


def layer(**owned) -> Layer:
    """A layer from experiments' ranges."""
    return Layer(
        "layer",
        tuple(
            Namespace(name, tuple(BucketRange(*one) for one in ranges))
            for name, ranges in owned.items()
        ),
    )


def allocation(**changes) -> Allocation:
    return Allocation(**({"experiment_id": "e", "seed": "s", "arms": HALVES} | changes))


def test_an_allocation_keeps_what_was_checked():
    forced = {UNIT: "challenger"}
    made = allocation(overrides=forced)
    forced[UNIT] = "nobody"
    assert made.overrides == {UNIT: "challenger"}
    with pytest.raises(TypeError):
        made.overrides[UNIT] = "nobody"
    assert made.ranges == (BucketRange(0, 5_000), BucketRange(5_000, 10_000))


def test_a_sample_ratio_check_expects_what_whole_buckets_give():
    thirds = (ArmShare("a", 0.3333), ArmShare("b", 0.3333), ArmShare("c", 0.3334))
    assert allocation(arms=thirds).expected_shares == {"a": 0.3333, "b": 0.3333, "c": 0.3334}
    # Of 33.33 and 33.34 buckets each arm owns 34.
    small = allocation(arms=thirds, coverage=0.01).expected_shares
    assert small == {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}
    assert allocation(coverage=0.0).expected_shares == {"champion": 0.0, "challenger": 0.0}


def test_a_layer_gives_each_bucket_to_one_experiment():
    shared = layer(e=[(0, 2_500), (7_500, 10_000)], other=[(2_500, 7_500)], later=[(5, 5)])
    assert allocation(layer=shared).namespace == (BucketRange(0, 2_500), BucketRange(7_500, 10_000))


WRONG = {
    "no arms": (lambda: allocation(arms=()), r"arms=\[\] is empty; name at least one"),
    "an empty arm": (
        lambda: allocation(arms=(ArmShare("", 1.0),)),
        r"a name in arms='' is empty; write a name",
    ),
    "an arm twice": (
        lambda: allocation(arms=(ArmShare("a", 0.5), ArmShare("a", 0.5))),
        r"arms are \['a', 'a'\]; name each once",
    ),
    "shares": (
        lambda: allocation(arms=(ArmShare("a", 0.5), ArmShare("b", 0.6))),
        r"shares=\[0.5, 0.6\] add up to 1.1; make them",
    ),
    "coverage": (lambda: allocation(coverage=2.0), r"coverage=2.0 is no share; take one"),
    "no id": (lambda: allocation(experiment_id=" "), r"experiment_id=' ' is empty"),
    "no seed": (lambda: allocation(seed=""), r"seed='' is empty"),
    "an unknown arm": (
        lambda: allocation(overrides={UNIT: "rival"}),
        r"overrides\['00000000'…\]='rival' is no arm; name one of \['champion', 'challenger'\]",
    ),
    "a raw unit": (
        lambda: allocation(overrides={"account-1": "champion"}),
        r"is no hashed unit of 64 hex digits; pass what unit_hash",
    ),
    "a seed twice": (
        lambda: allocation(holdout=Holdout("s", 0.1)),
        r"seeds are .*'holdout.seed': 's'.*; take another for each",
    ),
    "the layer's seed": (
        lambda: allocation(seed="layer", layer=layer(e=[(0, 10)])),
        r"seeds are .*'layer.seed': 'layer'",
    ),
    "two owners": (
        lambda: layer(e=[(0, 10)], other=[(9, 20)]),
        r"'e' owns buckets 0 to 10 and 'other' owns 9 to 20; let each bucket have one owner",
    ),
    "one within another": (
        lambda: layer(e=[(0, 100)], a=[(20, 30)], b=[(30, 40)]),
        r"'e' owns buckets 0 to 100 and 'a'",
    ),
    "a bucket twice": (lambda: layer(e=[(0, 10), (5, 6)]), r"let each bucket have one owner"),
    "a layer of none": (lambda: Layer("layer", ()), r"layer.namespaces=\[\] is empty"),
    "a layer unnamed": (lambda: Layer("", (Namespace("e", ()),)), r"layer.seed='' is empty"),
    "a namespace unnamed": (lambda: layer(**{"": [(0, 1)]}), r"a name in layer.namespaces=''"),
    "a namespace twice": (
        lambda: Layer("layer", (Namespace("e", ()), Namespace("e", ()))),
        r"layer.namespaces are \['e', 'e'\]; name each once",
    ),
    "no namespace": (
        lambda: allocation(layer=layer(other=[(0, 10)])),
        r"experiment_id='e' owns no buckets of the layer; give it some",
    ),
    "an empty namespace": (lambda: allocation(layer=layer(e=[(3, 3)])), r"owns no buckets"),
    "a holdout unnamed": (lambda: Holdout("", 0.1), r"holdout.seed='' is empty"),
    "too large a holdout": (lambda: Holdout("h", 1.1), r"holdout.share=1.1 is no share"),
    "too fine a holdout": (lambda: Holdout("h", 0.00001), r"holdout.share=1e-05 is finer than"),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_dealt_is_refused_with_its_field(make, message):
    with pytest.raises(ExperimentError, match=message):
        make()
