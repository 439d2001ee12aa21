import pytest
from scipy import stats

from data.errors import ExperimentError
from serving.experiments.inference.sample_ratio import sample_ratio_p


def test_sample_ratio_against_scipy_and_across_the_switch():
    assert sample_ratio_p(60, 100, challenger_share=0.5) == pytest.approx(
        stats.binomtest(60, 100, 0.5).pvalue
    )
    assert sample_ratio_p(50, 100, challenger_share=0.5) == 1.0
    exact = stats.binomtest(100_700, 200_000, 0.5).pvalue
    assert sample_ratio_p(100_700, 200_000, challenger_share=0.5) == pytest.approx(exact, rel=0.02)
    assert sample_ratio_p(400, 1_000, challenger_share=0.5) < 1e-9
    with pytest.raises(ExperimentError, match="not a count"):
        sample_ratio_p(0, 0, challenger_share=0.5)
