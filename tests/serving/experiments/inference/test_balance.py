from itertools import product

import numpy as np
import pytest
from scipy import stats

from data.errors import ExperimentError
from serving.experiments.inference.balance import _TILTS, balance_p


@pytest.mark.parametrize("share", [0.5, 0.1, 0.93])
def test_its_evidence_has_the_mean_one_over_every_dealing(share):
    """Exact: of six units all 64 dealings, weighted by their chances. (p cuts e below 1.)"""
    values = np.array([0.0, 0.004, 0.1, 0.5, 0.97, 1.0])
    mean_e = mean_capped = 0.0
    for dealt in product([False, True], repeat=6):
        on = np.array(dealt)
        chance = share ** on.sum() * (1 - share) ** (~on).sum()
        terms = np.exp(_TILTS[:, None] * (on - share) * values) / (
            share * np.exp(_TILTS[:, None] * (1 - share) * values)
            + (1 - share) * np.exp(-_TILTS[:, None] * share * values)
        )
        e = terms.prod(axis=1).mean()
        assert balance_p(on, values, challenger_share=share) == pytest.approx(min(1.0, 1.0 / e))
        mean_e += chance * e
        mean_capped += chance * max(e, 1.0)
    assert mean_e == pytest.approx(1.0, rel=1e-9)
    assert mean_capped > 1.0


@pytest.mark.parametrize("share", [0.5, 0.1])
@pytest.mark.parametrize("kind", ["rare", "heavy", "shares"])
def test_the_level_holds_at_every_look_from_the_first_unit(share, kind):
    random, wrong, runs, alpha = np.random.default_rng(5), 0, 60, 0.1
    for _ in range(runs):
        values = {
            "rare": (random.random(300) < 0.02).astype(float),
            "heavy": np.minimum(random.pareto(1.0, 300) * 0.01, 1.0),
            "shares": random.beta(1, 20, 300),
        }[kind]
        on = random.random(300) < share
        wrong += any(
            balance_p(on[:n], values[:n], challenger_share=share) <= alpha
            for n in range(1, 301, 13)
        )
    assert wrong / runs <= alpha


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_it_asks_for_little_more_than_the_exact_test_of_one_look(share):
    """Of units without their only outcome: 1 in a million by binomial, 1 in 500 by it."""
    gaps = 100
    met = int(stats.binom.isf(1e-6, gaps, share)) + 1
    on = np.arange(1_000) < met
    values = (np.arange(1_000) < gaps).astype(float)
    assert stats.binomtest(met, gaps, share, alternative="greater").pvalue < 1e-6
    assert balance_p(on, values, challenger_share=share) < 1 / 500


def test_numbers_that_differ_by_arm_are_found_of_few_and_of_many_answers():
    random = np.random.default_rng(7)
    on = random.random(2_000) < 0.5
    once = (random.random(2_000) < np.where(on, 0.08, 0.02)).astype(float)
    assert balance_p(on, once, challenger_share=0.5) < 0.001
    assert balance_p(~on, once, challenger_share=0.5) < 0.001
    busy = random.binomial(500, np.where(on, 0.03, 0.01)) / 500
    assert balance_p(on[:300], busy[:300], challenger_share=0.5) < 0.001
    assert (busy > 0).mean() > 0.9  # of nearly every unit something is missing
    alike = random.binomial(500, 0.02, 300) / 500
    assert balance_p(on[:300], alike, challenger_share=0.5) > 0.05


def test_of_several_numbers_the_mean_evidence_counts():
    random = np.random.default_rng(11)
    on = random.random(400) < 0.5
    told, untold = on * 0.2, random.random(400) * 0.01
    alone = balance_p(on, told, challenger_share=0.5)
    assert alone < 1e-9
    both = balance_p(on, untold, told, challenger_share=0.5)
    assert both == pytest.approx(2 * alone, rel=1e-3)
    with pytest.raises(ExperimentError, match="no values"):
        balance_p(on, challenger_share=0.5)


def test_nothing_yet_is_no_evidence():
    assert balance_p(np.zeros(0, dtype=bool), np.zeros(0), challenger_share=0.5) == 1.0
    assert balance_p(np.array([True, False]), np.zeros(2), challenger_share=0.5) == 1.0


def test_bad_numbers_are_refused():
    on = np.array([True, False])
    for change, said in (
        ({"values": np.array([0.0, 1.5])}, "outside 0 … 1"),
        ({"values": np.array([0.0, np.nan])}, "missing"),
        ({"values": np.zeros(3)}, "one value per unit"),
        ({"challenger": on[None], "values": np.zeros((1, 2))}, "one number per unit"),
        ({"challenger": np.array([1, 0])}, "True where"),
        ({"challenger_share": 1.0}, "share"),
    ):
        given = {"challenger": on, "values": np.zeros(2), "challenger_share": 0.5} | change
        arm, values = given.pop("challenger"), given.pop("values")
        with pytest.raises(ExperimentError, match=said):
            balance_p(arm, values, **given)
