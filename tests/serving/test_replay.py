import httpx
import pytest

from data.contract import Label, LabelledReview, Review
from data.errors import ExperimentError
from serving.experiments.decision_rule import DecisionRule
from serving.experiments.store import ExperimentStore
from serving.experiments.verdict import decide
from serving.replay import replay


def review(number: int, sentiment: str | None) -> LabelledReview:
    return LabelledReview(
        review=Review(review_id=f"r{number}", text="맛있어요 " * (number % 7 + 1)),
        label=Label(sentiment=sentiment, intensity=None if sentiment else 0),
    )


REVIEWS = [review(n, ("negative", "neutral", "positive")[n % 3]) for n in range(30)]


def test_a_replay_ends_in_a_verdict_and_a_second_one_adds_nothing(
    deployment, start_gateway, tmp_path
):
    with start_gateway(deployment) as running:
        first = replay(running.url, [*REVIEWS, review(99, None)], requests=400, seed=7)
        second = replay(running.url, [*REVIEWS, review(99, None)], requests=400, seed=7)
        other = replay(running.url, REVIEWS, requests=20, seed=8, rate_per_s=200.0)
    assert first.held_out_reviews == 30
    assert (first.answered, first.outcomes_stored, first.errors) == (400, 400, {})
    assert (second.answered, second.outcomes_stored, second.outcomes_known) == (400, 0, 400)
    assert second.replay_id == first.replay_id != other.replay_id
    assert "replay of 30 held-out" in first.note
    assert other.seconds >= 19 / 200.0
    assert 0 < first.latency_ms["p50"] <= first.latency_ms["p99"]

    store = ExperimentStore(f"sqlite:///{tmp_path / 'store.db'}")
    assert store.counts() == {"exposures": 420, "outcomes": 420}
    data = store.exposures_with_outcomes("spine-test", deployment.deployment_id)
    store.close()
    assert len(set(data.unit_hex())) == 420
    assert (data.outcomes == 1).all()
    verdict = decide(data, deployment, DecisionRule(min_exposures_per_arm=50))
    assert verdict.decision in {"continue", "promote", "roll_back"}
    assert sum(verdict.exposures.values()) == 420
    assert verdict.low <= verdict.difference <= verdict.high


def test_a_busy_gateway_is_asked_again(deployment, start_gateway):
    with start_gateway(deployment, max_waiting=0) as running:
        result = replay(running.url, REVIEWS, requests=40, seed=1, concurrency=2)
    assert result.answered == result.outcomes_stored == 40
    assert result.errors == {}


def test_reviews_without_a_sentiment_are_refused():
    with pytest.raises(ExperimentError, match="none of 1 reviews"):
        replay("http://127.0.0.1:9", [review(1, None)], requests=1, seed=1)


def test_a_gateway_that_is_away_is_refused():
    with pytest.raises(ExperimentError, match="no gateway answers"):
        replay("http://127.0.0.1:9", REVIEWS, requests=1, seed=1)


def test_a_gateway_that_is_not_ready_is_refused(deployment, start_gateway):
    arms = tuple(arm.model_copy(update={"manifest_digest": "0" * 64}) for arm in deployment.arms)
    with start_gateway(deployment.model_copy(update={"arms": arms})) as running:
        assert httpx.get(f"{running.url}/health").status_code == 200
        with pytest.raises(ExperimentError, match="is not ready"):
            replay(running.url, REVIEWS, requests=1, seed=1)


@pytest.mark.parametrize(
    "wrong", [{"requests": 0}, {"concurrency": 0}, {"rate_per_s": 0.0}, {"rate_per_s": -1.0}]
)
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(ExperimentError, match="above 0"):
        replay("http://127.0.0.1:9", REVIEWS, **({"requests": 1, "seed": 1} | wrong))
