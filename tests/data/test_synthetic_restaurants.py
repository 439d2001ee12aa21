"""Made-up restaurants: summaries cite what is there, and the same seed makes the same ones."""

from data.answers import ANSWERS
from data.prompts import TASKS
from data.sources.synthetic_restaurants import MOST_REVIEWS, synthetic_restaurants
from data.summaries import verify_summary
from data.targets import Example, summary_examples


def _examples(count: int, seed: int) -> list[Example]:
    made = synthetic_restaurants(count, seed=seed)
    return [example for summary, reviews in made for example in summary_examples(summary, reviews)]


def test_every_summary_cites_what_its_reviews_say():
    made = list(synthetic_restaurants(30, seed=3))
    assert len(made) > 20
    for summary, reviews in made:
        assert len(reviews) <= MOST_REVIEWS
        assert {row.review.restaurant_id for row in reviews} == {summary.restaurant_id}
        verify_summary(summary, {row.review.review_id: row for row in reviews})


def test_their_examples_obey_their_forms():
    examples = _examples(20, seed=4)
    assert {example.task for example in examples} == set(TASKS) - {"labels"}
    for example in examples:
        ANSWERS[example.task].model_validate_json(example.answer)


def test_a_seed_decides():
    assert _examples(5, seed=7) == _examples(5, seed=7)
    assert _examples(5, seed=7) != _examples(5, seed=8)
