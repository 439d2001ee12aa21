import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from data.errors import ExperimentError
from serving.experiments.inference.interleaving import (
    Credit,
    InterleavedPage,
    credit,
    interleave,
    preference,
    unit_scores,
)

GOLDEN = ["bacde nCCn-", "abcde CnCn-", "bacde nCCn-", "abdce CnnC-", "bacde nCCn-", "abcde CnCn-"]
RANKINGS = st.lists(st.sampled_from("가나다라마바사아"), max_size=12)


def deal(champion, challenger, request, **settings_):
    return interleave(list(champion), list(challenger), salt="소금", request=request, **settings_)


def test_the_same_request_is_dealt_the_same_page_and_golden_pages_stay():
    pages = [deal("abcd", "bdea", f"r{i}") for i in range(6)]
    assert pages == [deal("abcd", "bdea", f"r{i}") for i in range(6)]
    assert [shown(page) for page in pages] == GOLDEN
    other = [interleave("abcd", "bdea", salt="pepper", request=f"r{i}") for i in range(6)]
    assert pages != other


def shown(page):
    letters = {"champion": "C", "challenger": "n", None: "-"}
    return "".join(page.results) + " " + "".join(letters[team] for team in page.teams)


def test_the_coins_are_the_bits_that_the_docstring_names():
    ranking = [str(i) for i in range(600)]
    page = deal(ranking, ranking, "요청")
    for turn, team in enumerate(page.teams[::2]):
        text = b"interleaving\x00" + "소금".encode() + b"\x00" + "요청".encode()
        digest = hashlib.sha256(text + struct.pack(">I", turn // 256)).digest()[::-1]
        bit = digest[turn % 256 // 8] >> (turn % 8) & 1
        assert team == ("champion" if bit else "challenger")


@given(RANKINGS, RANKINGS, st.text(max_size=8), st.one_of(st.none(), st.integers(1, 10)))
@settings(max_examples=200, deadline=None)
def test_a_page_shows_the_best_of_both_once(champion, challenger, request_, depth):
    page = deal(champion, challenger, request_, depth=depth)
    everything = set(champion) | set(challenger)
    wanted = len(everything) if depth is None else min(depth, len(everything))
    assert len(page.results) == len(page.teams) == len(set(page.results)) == wanted
    for team, ranking in (("champion", champion), ("challenger", challenger)):
        own = [r for r, t in zip(page.results, page.teams, strict=True) if t == team]
        assert own == sorted(own, key=ranking.index)
    # Every pick was its team's best result that was left.
    for place, (result, team) in enumerate(zip(page.results, page.teams, strict=True)):
        ranking = challenger if team == "challenger" else champion
        if team is not None:
            assert result == next(r for r in ranking if r not in page.results[:place])
    picks = [page.teams.count("champion"), page.teams.count("challenger")]
    dealt = len(page.results) - page.teams.count(None)
    assert None not in page.teams[:dealt]
    for count in range(2, dealt + 1, 2):
        first = page.teams[:count]
        if set(champion) == set(challenger):
            assert first.count("champion") == first.count("challenger")
    assert abs(picks[0] - picks[1]) <= 1


def test_all_coins_of_a_small_deal():
    """a-b against b-a, two rounds: whoever is first picks its best, the other its own best."""
    seen = {deal("ab", "ba", f"{i}").results for i in range(50)}
    assert seen == {("a", "b"), ("b", "a")}
    assert deal("ab", "ba", "x").teams in {("champion", "challenger"), ("challenger", "champion")}


def test_where_one_ranking_runs_out_the_rest_belongs_to_nobody():
    page = deal("abcdefg", "xy", "r")
    assert page.results[4:] == ("c", "d", "e", "f", "g")[-len(page.results[4:]) :]
    assert page.teams[4:] == (None,) * 5
    assert deal("ab", "", "r") == InterleavedPage(("a", "b"), (None, None))
    assert deal("", "", "r") == InterleavedPage((), ())
    assert credit(deal("ab", "", "r"), ["a"]) == Credit(0, 0)


def test_doubles_count_where_they_stand_first():
    assert deal("aab", "aab", "r").results == deal("ab", "ab", "r").results


def test_a_long_ranking_is_dealt_in_time():
    ranking = [str(i) for i in range(20_000)]
    page = deal(ranking, ranking[::-1], "r")
    assert page.teams.count("champion") == page.teams.count("challenger") == 10_000


def test_equal_rankings_have_no_edge_at_any_place():
    """4,000 requests of one ranking twice: each place falls to either team like a fair coin."""
    teams = np.array([deal("abcdefghi", "abcdefghi", f"r{i}").teams for i in range(4_000)])
    hits = (teams == "challenger").sum(axis=0)
    p = [stats.binomtest(int(hit), 4_000).pvalue for hit in hits]
    assert min(p) > 0.001
    np.testing.assert_array_equal(hits[0:8:2] + hits[1:8:2], 4_000)


def test_equal_rankings_keep_the_level_for_users_who_click_from_the_top():
    """800 experiments of 60 users each; clicks favour the top, the coin decides the rest."""
    random = np.random.default_rng(12)
    once = often = 0
    pages = [deal("abcde", "abcde", f"r{i}") for i in range(4_000)]
    for _ in range(800):
        scores = []
        for page in random.choice(np.arange(4_000), 60, replace=False):
            clicked = [
                r
                for r, u in zip("abcde", random.random(5), strict=True)
                if u < 0.5 / (1 + "abcde".index(r))
            ]
            scores.append(credit(pages[page], clicked).score)
        found = preference(scores, alpha=0.05, planned_units=40)
        once += found.signs.p <= 0.05
        often += found.anytime_p <= 0.05
    assert once / 800 <= 0.06
    assert often / 800 <= 0.05


def test_a_better_ranking_is_preferred():
    random = np.random.default_rng(3)
    relevance = dict(zip("abcde", (0.6, 0.4, 0.2, 0.1, 0.05), strict=True))
    scores = []
    for i in range(300):
        page = deal("edcba", "abcde", f"r{i}", depth=3)
        clicked = [r for r in page.results if random.random() < relevance[r]]
        scores.append(credit(page, clicked).score)
    found = preference(scores, alpha=0.05, planned_units=200)
    assert found.delta > 0.1
    assert found.signs.low > 0.5
    assert found.anytime_p < 0.001


def test_credit_counts_a_result_once_and_refuses_strangers():
    page = InterleavedPage(("a", "b", "c"), ("champion", "challenger", None))
    assert credit(page, ["b", "b", "c"]) == Credit(champion=0, challenger=1)
    assert credit(page, ["b"]).score == 1.0
    assert credit(page, ["a", "b"]).score == credit(page, []).score == 0.0
    assert Credit(3, 1).score == -0.5
    with pytest.raises(ExperimentError, match="'z'"):
        credit(page, ["a", "z"])


def test_a_unit_counts_once_in_the_order_of_arrival():
    found = unit_scores(["나", "가", "나", "다"], [1.0, -1.0, 0.0, 0.5])
    assert found.unit.tolist() == ["나", "가", "다"]
    np.testing.assert_array_equal(found.score, [0.5, -1.0, 0.5])
    assert unit_scores([], []).score.shape == (0,)


def test_preference_equals_the_sign_test_and_chapelles_delta():
    found = preference([1.0, 0.2, -0.1, 0.0, 0.0], alpha=0.05, planned_units=10)
    assert (found.signs.wins, found.signs.losses, found.signs.ties) == (2, 1, 2)
    assert found.delta == pytest.approx((2 + 2 / 2) / 5 - 0.5, abs=1e-12)
    assert found.signs.p == stats.binomtest(2, 3).pvalue
    nothing = preference([], alpha=0.05, planned_units=10)
    assert (nothing.delta, nothing.signs.p, nothing.anytime_p) == (0.0, 1.0, 1.0)


def test_the_anytime_p_holds_over_all_looks():
    """400 experiments of 300 fair coins, looked at five times."""
    random, ever = np.random.default_rng(9), 0
    for signs in random.choice([-1.0, 1.0], size=(400, 300)):
        looks = [
            preference(signs[:n], alpha=0.05, planned_units=100) for n in (20, 60, 100, 200, 300)
        ]
        ever += min(look.anytime_p for look in looks) <= 0.05
    assert ever / 400 <= 0.05


@pytest.mark.parametrize("bad", [float("nan"), 1.5, float("-inf")])
def test_scores_out_of_range_are_refused(bad):
    with pytest.raises(ExperimentError, match="outside -1"):
        preference([0.5, bad], alpha=0.05, planned_units=10)
    with pytest.raises(ExperimentError, match="outside -1"):
        unit_scores(["a"], [bad])


def test_other_bad_input_is_refused():
    with pytest.raises(ExperimentError, match="one of each per request"):
        unit_scores(["a", "b"], [0.5])
    with pytest.raises(ExperimentError, match="depth=0"):
        deal("ab", "ba", "r", depth=0)
    with pytest.raises(ExperimentError, match="planned_units=0"):
        preference([0.5], alpha=0.05, planned_units=0)
