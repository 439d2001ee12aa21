import itertools

import numpy as np
import pytest

from data.errors import SettingsError
from serving.engines.plan_folder import Profile, profile_for
from training.engine_profiles import MULTIPLE, choose_profiles, count_lengths


def _lengths(count: int = 3000, *, most: int = 128) -> list[int]:
    drawn = np.random.default_rng(7).lognormal(3.42, 0.7, size=count)
    return [min(most, max(4, round(float(length)))) for length in drawn]


def _padding(lengths: list[int], edges: list[int]) -> float:
    return sum(min(e for e in edges if e >= length) for length in lengths) / sum(lengths)


@pytest.mark.parametrize("bound", [1.5, 1.3, 1.22])
def test_every_text_has_a_profile_and_the_padding_is_within_its_bound(bound: float) -> None:
    lengths = _lengths()
    profiles, padding = choose_profiles(count_lengths(lengths), max_tokens=128, max_padding=bound)
    edges = sorted({profile.tokens for profile in profiles})
    assert padding == pytest.approx(_padding(lengths, edges))
    assert padding <= bound
    assert edges[-1] == 128
    assert all(edge % MULTIPLE == 0 for edge in edges)
    assert all(profile_for(profiles, 1, length) is not None for length in lengths)


def test_no_fewer_lengths_would_do_and_none_as_few_pad_less() -> None:
    lengths = _lengths(400, most=64)
    profiles, padding = choose_profiles(count_lengths(lengths), max_tokens=64, max_padding=1.3)
    edges = sorted({profile.tokens for profile in profiles})
    candidates = range(MULTIPLE, 64, MULTIPLE)

    def least(count: int) -> float:
        ways = itertools.combinations(candidates, count - 1)
        return min(_padding(lengths, [*way, 64]) for way in ways)

    assert padding == pytest.approx(least(len(edges)))
    assert least(len(edges) - 1) > 1.3


def test_batches_fill_the_budget_and_a_few_rows_have_a_profile_of_their_own() -> None:
    profiles, _ = choose_profiles(
        {16: 0.9, 100: 0.1}, max_tokens=100, batch_tokens=1600, max_rows=64, max_padding=1.01
    )
    assert profiles == (
        Profile(batch=4, tokens=16),
        Profile(batch=64, tokens=16),
        Profile(batch=4, tokens=100),
        Profile(batch=16, tokens=100),
    )


def test_the_longest_window_is_covered_though_none_came_and_is_not_rounded_up() -> None:
    profiles, padding = choose_profiles({8: 1.0}, max_tokens=61, max_padding=1.1)
    assert {profile.tokens for profile in profiles} == {8, 61}
    assert padding == 1.0


@pytest.mark.parametrize(
    ("shares", "settings", "says"),
    [
        ({}, {}, "shares="),
        ({200: 1.0}, {}, "max_tokens=128"),
        ({0: 1.0}, {}, "between 1"),
        ({8: 1.0}, {"max_padding": 1.0}, "max_padding=1.0"),
        (dict.fromkeys(range(1, 129), 1 / 128), {"max_padding": 1.01}, "allow more"),
    ],
)
def test_what_cannot_be_kept_is_refused(shares, settings, says):
    with pytest.raises(SettingsError, match=says):
        choose_profiles(shares, max_tokens=128, **settings)


@pytest.mark.parametrize(
    ("rows", "tokens", "number"),
    [(1, 5, 0), (4, 16, 0), (5, 16, 1), (64, 9, 1), (200, 16, 1), (1, 17, 2), (9, 100, 3)],
)
def test_the_smallest_profile_that_holds_a_batch(rows: int, tokens: int, number: int) -> None:
    profiles = [Profile(batch=b, tokens=t) for t, b in ((16, 4), (16, 64), (100, 4), (100, 16))]
    assert profile_for(profiles, rows, tokens) == number
    assert profile_for(profiles, rows, 101) is None
