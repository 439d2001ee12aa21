import pytest

from data.answers import ANSWERS, read_answer
from data.prompts import Task
from serving.engines.chat import ChatAnswer
from training.evaluation.language.form import as_measures, drift_of, drift_parts, form_parts

ASPECT = '{"bullets":[{"evidence":["#2"],"polarity":"positive","text":"맛"}],"sentence":"맛"}'


def form(task: Task, text: str, numbered: int, finish: str = "stop", error: str | None = None):
    answer = ChatAnswer(text, finish, error=error)  # type: ignore[arg-type]
    return form_parts(task, answer, read_answer(ANSWERS[task], text, numbered), numbered)


def hits(parts: dict[str, list[float]]) -> set[str]:
    assert all(of == 1.0 for _, of in parts.values())
    return {name for name, (hit, _) in parts.items() if hit}


def test_an_answer_as_taught_has_every_form() -> None:
    assert hits(form("aspect", ASPECT, 2)) == {"parsed", "obeyed", "saved", "cited"}


def test_a_citation_of_nothing_parses_but_does_not_obey() -> None:
    assert hits(form("aspect", ASPECT, 1)) == {"parsed"}
    assert hits(form("aspect", '{"bullets":[],"sentence":"맛"}', 1)) == {"parsed"}


def test_what_can_be_mended_is_told_apart_from_what_obeys() -> None:
    wrong = ASPECT[:-1] + ',"extra":1}'
    assert hits(form("aspect", wrong, 2)) == {"parsed", "saved", "cited"}
    fenced = f"```json\n{ASPECT}\n```"
    assert hits(form("aspect", fenced, 2)) == {"saved"}


def test_a_label_may_cite_nothing_and_an_overall_has_nothing_to_cite() -> None:
    assert "cited" in hits(form("strengths", '{"strengths":[]}', 3))
    assert "cited" not in form("overall", '{"overall":"좋다"}', 0)


def test_what_was_cut_or_failed_is_counted() -> None:
    assert hits(form("aspect", ASPECT[:40], 2, "length")) == {"cut"}
    assert hits(form("aspect", "", 2, "error", "refused")) == {"failed"}


@pytest.mark.parametrize(
    ("words", "drift", "latin", "letters"),
    [
        ("국물이 진해요 3번 ㅋㅋ", 0, 0, 9),
        ("汤很好 국물", 3, 0, 5),
        ("LA갈비 wifi 국물", 0, 6, 10),
        ("tasty 국물", 5, 0, 7),
        ("12,000원!", 0, 0, 1),
    ],
)
def test_drift_counts_letters_that_are_not_hangul(
    words: str, drift: int, latin: int, letters: int
) -> None:
    assert drift_of(words, "") == {"drift": [drift, letters], "latin": [latin, letters]}


def test_a_latin_word_of_the_prompt_is_no_drift() -> None:
    assert drift_of("Blue Bottle 커피", "blue bottle 다녀옴")["drift"] == [0, 12]


def test_keys_and_codes_of_an_answer_are_not_its_words() -> None:
    assert drift_parts(ASPECT, "") == {"drift": [0, 2], "latin": [0, 2]}
    assert drift_parts(ASPECT[:-2], "")["drift"] == [0, 2]
    labels = '{"evidence":[],"aspects":{"food":"absent"},"sentiment":"neutral"}'
    assert drift_parts(labels, "")["drift"] == [0, 0]
    assert drift_parts("Sure, here you are", "")["drift"] == [14, 14]


def test_two_passes_keep_their_names_apart() -> None:
    assert as_measures({"parsed": [1.0, 1.0]}, "raw") == {"raw_parsed": [1.0, 1.0]}
