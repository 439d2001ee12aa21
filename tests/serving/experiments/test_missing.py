import numpy as np
import pytest
from scipy import stats

from serving.experiments.missing import missing_shares, uneven_p
from serving.experiments.units import UnitOutcomes

LEVEL = 0.001


def units(on, exposures, outcomes):
    count = len(on)
    return UnitOutcomes(
        unit=np.arange(4 * count, dtype=np.int64).view("V32"),
        arm=on.astype(np.uint8),
        arms=("champion", "challenger"),
        reward=np.where(outcomes > 0, 0.5, np.nan),
        exposures=exposures,
        outcomes=outcomes,
        labelled=outcomes,
        failed=np.zeros(count, dtype=np.int64),
        versions={},
    )


def test_shares_are_by_unit_and_none_where_nothing_was_answered():
    data = units(np.array([True, False, True]), np.array([4, 0, 1]), np.array([3, 0, 1]))
    assert missing_shares(data).tolist() == [0.25, 0.0, 0.0]


@pytest.mark.parametrize("answers", [1, 6, 400])
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_an_arm_that_lacks_more_is_found_whatever_units_answer(answers, share):
    random = np.random.default_rng(3)
    on = random.random(3_000) < share
    exposures = np.full(3_000, answers)
    for lacks, uneven in (((0.02, 0.08), True), ((0.03, 0.03), False), ((0.0, 0.06), True)):
        lost = random.binomial(exposures, np.where(on, lacks[1], lacks[0]))
        data = units(on, exposures, exposures - lost)
        p = uneven_p(on, missing_shares(data), challenger_share=share)
        assert (p < LEVEL) == uneven


def test_users_who_withhold_all_are_no_uneven_loss_though_answers_say_so():
    """In some of 200 sound experiments Fisher's test of answers is certain, this one in none."""
    random, fisher, found = np.random.default_rng(8), 0, 0
    for _ in range(200):
        on = random.random(400) < 0.5
        exposures = 1 + random.poisson(5.0 * np.exp(random.normal(0.0, 1.0, 400)))
        outcomes = np.where(random.random(400) < 0.05, 0, exposures)
        data = units(on, exposures, outcomes)
        p = uneven_p(on, missing_shares(data), challenger_share=0.5)
        found += p < LEVEL
        lost = exposures - outcomes
        table = [[outcomes[arm].sum(), lost[arm].sum()] for arm in (on, ~on)]
        fisher += stats.fisher_exact(table).pvalue < LEVEL
    assert found == 0
    assert fisher > 20
