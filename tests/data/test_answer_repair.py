import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from data.answer_repair import REPAIRED_CHARACTERS, mended, repaired_json


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    names: list[str] = Field(min_length=1, max_length=3)


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    title: str = Field(max_length=5)
    parts: list[Inner]


def mend(value: Any) -> tuple[Outer | None, list[str]]:
    mends: list[str] = []
    return mended(Outer.model_validate, value, mends), mends


def test_a_value_that_is_right_is_left_alone() -> None:
    found, mends = mend({"title": "ok", "parts": [{"names": ["a"]}]})
    assert found == Outer(title="ok", parts=[Inner(names=["a"])])
    assert mends == []


def test_inner_items_go_before_the_outer_ones() -> None:
    parts: list[Any] = [
        {"names": ["a", 1, "b"]},
        7,
        {"names": [2, 3]},
        {"names": ["c"], "more": 0},
        {"names": ["d", "e", "f", "g"]},
    ]
    found, mends = mend({"title": "세 글자보다 길다", "parts": parts})
    assert found is not None
    assert [each.names for each in found.parts] == [["a", "b"], ["c"], ["d", "e", "f"]]
    assert found.title == "세 글자보"
    assert mends == [
        "title: cut to 5 (1)",
        "parts: unknown keys left out (1)",
        "parts.names: cut to 3 (1)",
        "parts.names: items left out (3)",
        "parts: items left out (1)",
        "parts: items left out (1)",
    ]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"parts": []}, "title: cannot be mended"),
        ({"title": 1, "parts": []}, "title: cannot be mended"),
        ({"title": "a", "parts": {}}, "parts: cannot be mended"),
        ([], "answer: cannot be mended"),
        (None, "answer: cannot be mended"),
    ],
)
def test_nothing_is_put_in_the_place_of_what_is_missing(value: Any, why: str) -> None:
    assert mend(value) == (None, [why])


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=8),
        lambda each: (
            st.lists(each, max_size=4)
            | st.dictionaries(st.sampled_from(["title", "parts", "names", "x"]), each, max_size=4)
        ),
        max_leaves=20,
    )
)
def test_mending_ends_in_something_valid_or_nothing(value: Any) -> None:
    found, mends = mend(value)
    assert (found is None) == bool(mends and mends[-1].endswith("cannot be mended"))
    if found is not None:
        assert Outer.model_validate(found.model_dump()) == found


@pytest.mark.parametrize(
    "text", ['{"a" ', "{", "(", '["a" {"b" ', "[", '{"a":[1,"', '"', "9", "//"]
)
def test_unlucky_texts_take_no_time(text: str) -> None:
    # Unbounded, json-repair takes minutes over some of these, and others overflow its stack.
    mends: list[str] = []
    started = time.process_time()
    found = repaired_json((text * 100_000)[:100_000], mends)
    assert time.process_time() - started < 10
    assert mends == [f"cut to {REPAIRED_CHARACTERS} characters"]
    assert not isinstance(found, dict) or len(str(found)) <= 2 * REPAIRED_CHARACTERS


def test_short_texts_are_not_cut() -> None:
    mends: list[str] = []
    assert repaired_json('답: {"a": 1', mends) == {"a": 1}
    assert repaired_json(" " * (REPAIRED_CHARACTERS - 1) + "7", mends) == 7
    assert mends == []
