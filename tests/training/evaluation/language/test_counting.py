from data.answers import (
    AspectAnswer,
    AspectStates,
    BulletAnswer,
    ClauseEvidence,
    LabelsAnswer,
    StrengthAnswer,
    StrengthsAnswer,
)
from data.contract import ASPECTS
from serving.engines.chat import ChatAnswer
from training.evaluation.language.counting import (
    category_parts,
    claims_parts,
    example_parts,
    labels_parts,
    overlap_counted,
    strengths_parts,
)
from training.evaluation.language.gold import Gold
from training.evaluation.language.tally import content_parts, read


def label(*evidence: tuple[int, str, str], intensity: int = 1, **states: str) -> LabelsAnswer:
    return LabelsAnswer(
        evidence=[
            ClauseEvidence(clause=f"#{number}", aspect=aspect, polarity=polarity)  # type: ignore[arg-type]
            for number, aspect, polarity in evidence
        ],
        aspects=AspectStates.model_validate(dict.fromkeys(ASPECTS, "absent") | states),
        intensity=intensity,  # type: ignore[arg-type]
        sentiment="positive",
        emotions=["joy"],
    )


GOLD = label((1, "food", "positive"), (2, "price", "negative"), food="positive", price="negative")


def test_every_gold_answer_scores_one_and_silence_nothing(gold: Gold) -> None:
    for example in gold.examples:
        right = read(example, ChatAnswer(example.answer, "stop"))
        assert right.obeyed
        assert content_parts(example, right.answer)["score"] == [1.0, 1.0]
        silent = content_parts(example, None)
        assert silent["score"] == [0.0, 1.0]
        assert silent[f"score:{example.task}"] == [0.0, 1.0]


def test_pairs_and_clauses_are_counted_from_the_cited_clauses() -> None:
    said = label((1, "food", "positive"), (2, "service", "negative"), food="positive")
    parts = labels_parts(GOLD, said)
    assert parts["category:food"] == [1, 0, 0]
    assert parts["category:price"] == [0, 0, 1]
    assert parts["category:service"] == [0, 1, 0]
    assert parts["clause"] == [1, 2]
    assert parts["presence"] == [1, 0, 1]
    assert parts["state"] == [1, 0, 1]


def test_whoever_says_every_aspect_has_sorted_no_clause() -> None:
    every = {0: set(ASPECTS), 1: set(ASPECTS)}
    parts = category_parts({0: {"food"}, 1: {"price"}}, every)
    assert parts["clause"] == [0, 2]
    assert parts["category"] == [2, 4, 0]


def test_hallucinated_and_uncited_aspects() -> None:
    said = label((1, "food", "positive"), food="positive", hygiene="negative")
    parts = labels_parts(GOLD, said)
    assert parts["hallucinated"] == [1, 2]
    assert parts["uncited"] == [1, 2]


def test_a_polarity_that_is_wrong_is_an_aspect_found_but_not_its_state() -> None:
    parts = labels_parts(GOLD, label((1, "food", "negative"), food="negative"))
    assert parts["presence"] == [1, 0, 1]
    assert parts["state"] == [0, 1, 2]


def test_intensity_is_charged_in_steps_and_silence_the_most() -> None:
    near = labels_parts(GOLD, label(intensity=0))
    assert near["intensity_mae"] == [1.0, 1.0]
    assert (near["intensity_exact"][0], near["intensity_within_one"][0]) == (0.0, 1.0)
    silent = labels_parts(GOLD, None)
    assert silent["intensity_mae"] == [3.0, 1.0]
    assert silent["intensity_within_one"][0] == 0.0


def test_bullets_are_matched_by_words_and_citations_with_their_polarity() -> None:
    first = BulletAnswer(evidence=["#1"], polarity="positive", text="국물이 진하다")
    second = BulletAnswer(evidence=["#2", "#3"], polarity="negative", text="값이 비싸다")
    gold = AspectAnswer(bullets=[first, second], sentence="맛은 좋고 값은 비싸다")
    turned = AspectAnswer(bullets=[second, first], sentence=gold.sentence)
    assert example_parts("aspect", "food", gold, turned)["score"] == [1.0, 1.0]
    wrong = AspectAnswer(
        bullets=[second.model_copy(update={"polarity": "positive"})], sentence=gold.sentence
    )
    parts = example_parts("aspect", "food", gold, wrong)
    assert parts["bullet_evidence"] == parts["bullet_evidence:food"] == [0, 2, 3]
    assert parts["sentence_chrf:food"][0] == 1.0
    assert 0.5 < parts["bullets_chrf"][0] < 0.7


def test_strengths_are_the_same_if_aspect_and_a_citation_agree() -> None:
    gold = [("food", frozenset({"#1", "#2"})), ("food", frozenset({"#2"}))]
    parts = claims_parts(gold, [("food", frozenset({"#2"})), ("service", frozenset({"#1"}))])  # type: ignore[arg-type,list-item]
    assert parts["strength"] == [1, 1, 1]
    assert parts["strength_aspect"] == [1, 1, 1]
    both = claims_parts(gold, [("food", frozenset({"#2"})), ("food", frozenset({"#1"}))])  # type: ignore[arg-type,list-item]
    assert both["strength"] == [2, 0, 0]


def test_no_strength_to_find_is_right_only_if_that_is_said() -> None:
    none = StrengthsAnswer(strengths=[])
    invented = StrengthsAnswer(
        strengths=[StrengthAnswer(aspect="food", evidence=["#1"], claim="국물이 진한 집")]
    )
    assert strengths_parts(none, none)["score"] == [1.0, 1.0]
    assert strengths_parts(none, None)["score"] == [0.0, 1.0]
    assert strengths_parts(none, invented)["score"] == [0.0, 1.0]
    assert "claims_chrf" not in strengths_parts(none, invented)


def test_a_thing_said_twice_is_right_once() -> None:
    assert overlap_counted(["food", "food", "price"], ["food", "service"]) == [1, 1, 2]
