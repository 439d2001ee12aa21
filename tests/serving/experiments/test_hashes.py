import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import ExperimentError
from serving.experiments.hashes import grouped, hashes_of, hex_of, is_hash, repeats

EVENTS = st.lists(
    st.sampled_from([f"{word:016x}{rest:016x}" for word in (0, 7) for rest in range(9)])
)


@given(EVENTS)
def test_hashes_come_back_and_are_grouped_in_the_order_of_their_bytes(digits):
    hashes = hashes_of(digits, 16, what="event")
    assert hex_of(hashes) == digits
    order, begins = grouped(hashes)
    # Python's sort is stable too: equal hashes stay as they came.
    assert order.tolist() == sorted(range(len(digits)), key=digits.__getitem__)
    assert int(begins.sum()) == len(set(digits))
    assert repeats(hashes) == len(digits) - len(set(digits))
    together = [digits[place] for place in order]
    assert [place for place in range(len(digits)) if begins[place]] == [
        place for place in range(len(digits)) if not place or together[place] != together[place - 1]
    ]


def test_hashes_that_differ_in_the_last_byte_alone_are_told_apart():
    digits = [f"{number:064x}" for number in range(255, -1, -1)] * 2
    order, begins = grouped(hashes_of(digits, 32, what="unit"))
    assert begins.tolist() == [True, False] * 256
    assert [digits[place] for place in order[::2]] == sorted(set(digits))


def test_many_random_hashes_agree_with_numpy():
    raw = np.random.default_rng(5).integers(0, 256, (30_000, 32), dtype=np.uint8)
    raw[1_000:2_000] = raw[:1_000]
    hashes = raw.view("V32")[:, 0]
    assert repeats(hashes) == 1_000
    assert repeats(hashes[1_000:]) == 0
    order, begins = grouped(hashes)
    assert int(begins.sum()) == len(np.unique(raw, axis=0)) == 29_000
    assert hashes[order].tolist() == sorted(hashes.tolist())


@pytest.mark.parametrize("wrong", ["", "0" * 63, "0" * 65, "A" * 64, "0" * 62 + " 0", "김씨" * 32])
def test_what_is_no_hash_is_refused_without_being_shown(wrong):
    assert not is_hash(wrong, 32)
    with pytest.raises(ExperimentError, match=r"unit 1 of 3 .* unit_hash") as refused:
        hashes_of(["0" * 64, wrong, "1" * 64], 32, what="unit")
    assert not wrong or wrong not in str(refused.value)


def test_lengths_that_add_up_are_no_excuse():
    with pytest.raises(ExperimentError, match="unit 0 of 2"):
        hashes_of(["0" * 62, "0" * 66], 32, what="unit")
