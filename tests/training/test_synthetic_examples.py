"""Made-up examples: as many as asked for, in the forms of answers, and short."""

import json
from itertools import groupby

from data.answers import ANSWERS
from training.synthetic_examples import synthetic_labels, synthetic_summaries


def test_labels_and_summaries_obey_their_forms():
    for example in (*synthetic_labels(30, seed=5), *synthetic_summaries(10, seed=5)):
        ANSWERS[example.task].model_validate_json(example.answer)


def test_an_overall_summary_is_asked_for_from_fixed_and_from_quoted_sentences():
    overall = [each for each in synthetic_summaries(12, seed=6) if each.task == "overall"]
    for _, pair in groupby(overall, key=lambda each: each.about):
        fixed, quoted = pair
        assert fixed.answer == quoted.answer
        assert fixed.messages[0] == quoted.messages[0]
        assert len(quoted.messages[1]["content"]) > len(fixed.messages[1]["content"])
        for sentence in json.loads(fixed.answer)["overall"].split(". "):
            assert sentence.removesuffix(".") in fixed.messages[1]["content"]


def test_a_seed_decides():
    assert synthetic_summaries(3, seed=7) == synthetic_summaries(3, seed=7)
    assert synthetic_labels(3, seed=7) != synthetic_labels(3, seed=8)
