from collections.abc import Callable
from dataclasses import replace

import pytest

from data.answers import LabelsAnswer
from data.errors import MetricError
from data.examples import Example
from serving.engines.chat import ChatAnswer
from training.evaluation.intervals import draw_resamples
from training.evaluation.language.baselines import NULLS, majority_label, null_baselines
from training.evaluation.language.figures import all_figures
from training.evaluation.language.gold import Gold
from training.evaluation.language.measuring import measured
from training.evaluation.language.restaurants import Summarised
from training.evaluation.language.tally import Said, Tally, tally_of

ValueOf = Callable[[str, str], float]
TEXTS = (
    *("sentence_rouge_1", "sentence_rouge_2", "sentence_rouge_l", "sentence_chrf"),
    *("bullets_rouge_l", "bullets_chrf", "overall_rouge_l", "overall_chrf", "claims_chrf"),
    *("summary_overall_chrf", "summary_sentence_rouge_l", "summary_bullets_chrf"),
)
OVERLAPS = (
    *("category_macro_f1", "clause_accuracy", "aspect_f1", "state_f1", "evidence_f1"),
    *("strength_f1", "emotions_f1", "summary_category_macro_f1", "summary_clause_accuracy"),
    *("summary_strength_f1", "summary_polarity"),
)


def as_written(gold: Gold) -> Said:
    """What a model would say that knew everything."""
    return Said(
        [[ChatAnswer(each.answer, "stop") for each in gold.examples]],
        restaurants=[
            [
                Summarised(
                    each.written.summary,
                    each.written.strengths,
                    {row.review.review_id: row.label for row in each.rows},
                )
                for each in gold.restaurants
            ]
        ],
    )


@pytest.fixture(scope="module")
def value(gold: Gold) -> ValueOf:
    said = null_baselines(gold) | {"gold": as_written(gold)}
    tallies: dict[str, Tally] = {name: tally_of(gold, mine) for name, mine in said.items()}
    drawn = draw_resamples([item.restaurant for item in gold.items], resamples=2)
    figures = all_figures()
    return lambda name, who: measured(figures[name], tallies[who], drawn).value


@pytest.mark.parametrize("name", TEXTS + OVERLAPS)
def test_gold_is_one_the_skeleton_nothing_and_anothers_gold_clearly_lower(
    name: str, value: ValueOf
) -> None:
    assert value(name, "gold") == pytest.approx(1.0)
    assert value(name, "empty") == 0.0
    assert value(name, "other") < 0.75


def test_gold_hallucinates_nothing_and_cites_verbatim(value: ValueOf) -> None:
    assert value("summary_evidence_verbatim", "gold") == 1.0
    assert value("summary_evidence_supported", "gold") == 1.0
    assert value("hallucinated", "gold") == value("summary_hallucinated", "gold") == 0.0
    assert value("summary_evidence_verbatim", "other") == 0.0
    assert value("hallucinated", "other") > 0.3


def test_form_alone_proves_nothing(value: ValueOf) -> None:
    assert value("parsed", "empty") == 1.0
    assert value("obeyed", "empty") > 0.4
    assert value("task_score", "empty") < 0.2


def test_an_empty_answer_has_no_precision_rather_than_none(value: ValueOf) -> None:
    for name in ("aspect_precision", "evidence_precision", "summary_evidence_verbatim", "drift"):
        with pytest.raises(MetricError, match="nothing"):
            value(name, "empty")


def test_a_baseline_has_no_figure_of_what_it_does_not_answer(value: ValueOf) -> None:
    for name, who in (
        ("sentence_chrf", "majority"),
        ("category_macro_f1", "lead"),
        ("summary_category_macro_f1", "lead"),
        ("summary_overall_chrf", "everything"),
        ("raw_parsed", "other"),
    ):
        with pytest.raises(MetricError):
            value(name, who)


def test_whoever_says_all_finds_all_and_is_seldom_right(value: ValueOf) -> None:
    assert value("aspect_recall", "everything") == 1.0
    assert value("aspect_precision", "everything") < 0.4
    assert value("clause_accuracy", "everything") == 0.0
    assert value("category_macro_f1", "everything") > value("category_macro_f1", "majority")


def test_the_lead_copies_what_it_is_shown(value: ValueOf, gold: Gold) -> None:
    assert value("evidence_f1", "lead") > 0.8
    assert 0.1 < value("sentence_chrf", "lead") < 1.0
    assert value("summary_evidence_verbatim", "lead") == 1.0


def test_the_majority_reads_the_training_part_alone(gold: Gold) -> None:
    majority = majority_label(gold.train)
    answers = [
        LabelsAnswer.model_validate_json(each.answer)
        for each in gold.train
        if each.task == "labels"
    ]
    cited = [each.aspect for answer in answers for each in answer.evidence]
    assert cited.count(majority.aspect) == max(map(cited.count, cited))
    other_test = replace(gold, examples=gold.examples[:20])
    first = null_baselines(gold)["majority"].constrained[0]
    assert null_baselines(other_test)["majority"].constrained[0] == first[:20]


def test_every_baseline_answers_or_declines_each_example(gold: Gold) -> None:
    said = null_baselines(gold)
    assert tuple(said) == NULLS
    for name, mine in said.items():
        asked = {
            example.task: answer is not None
            for example, answer in zip(gold.examples, mine.constrained[0], strict=True)
        }
        writes = name not in {"majority", "everything"}
        assert asked == {"labels": name != "lead"} | dict.fromkeys(
            ("aspect", "overall", "strengths"), writes
        )


def test_one_restaurant_has_no_other(gold: Gold) -> None:
    alone = tuple(each for each in gold.examples if gold.restaurant_of(each) == "s0")
    with pytest.raises(MetricError, match="larger snapshot"):
        null_baselines(replace(gold, examples=alone))


def test_without_training_labels_there_is_no_majority(gold: Gold) -> None:
    written: list[Example] = [each for each in gold.train if each.task != "labels"]
    with pytest.raises(MetricError, match="no majority"):
        majority_label(written)
