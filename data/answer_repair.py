"""What can be saved of an answer that is not in its form; every mend is named.

Mending only leaves out: keys and items that the form refuses go, what is too long is cut. Nothing
is put in, so an answer that lacks something it must say cannot be mended.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import json_repair
from pydantic import ValidationError
from pydantic_core import ErrorDetails

Answer = TypeVar("Answer")
Place = tuple[int | str, ...]
REPAIRED_CHARACTERS: Final = 4_000
"""Of a longer text only the beginning is repaired. The longest answer of any form has half as many
characters, and json-repair's time grows with the square: 0.6 s for 4,000 unlucky ones, 490 s for
100,000."""


def repaired_json(text: str, mends: list[str]) -> Any:
    """The JSON value in a text that is not JSON: cut short, in a code fence, with words around it.

    Args:
        text: what a model said.
        mends: what had to be mended is added.

    Returns:
        The value; None or an empty text where there is none to be found.
    """
    if len(text) > REPAIRED_CHARACTERS:
        text = text[:REPAIRED_CHARACTERS]
        mends.append(f"cut to {REPAIRED_CHARACTERS} characters")
    try:
        return json_repair.loads(text)
    except (ValueError, RecursionError):  # it is nested too deep
        return None


def mended(validate: Callable[[Any], Answer], value: Any, mends: list[str]) -> Answer | None:
    """A value made valid by leaving out what is not; None where that is not enough.

    Args:
        validate: raises pydantic's ValidationError for what is wrong.
        value: of the answer; it is changed.
        mends: what had to be mended is added, and last why it was not enough.
    """
    while True:
        try:
            return validate(value)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False)
        hopeless = [each["loc"] for each in problems if not _can_be_left_out(each)]
        if hopeless:
            mends.append(f"{_name(hopeless[0])}: cannot be mended")
            return None
        mends += _leave_out(value, problems)


def _can_be_left_out(problem: ErrorDetails) -> bool:
    return (
        problem["type"] == "extra_forbidden"
        or problem["type"].endswith("too_long")
        or any(isinstance(step, int) for step in problem["loc"])
    )


def _leave_out(value: Any, problems: Sequence[ErrorDetails]) -> list[str]:
    """Leave out of a value what each problem is about; each makes it smaller."""
    found: Counter[str] = Counter()
    refused: dict[Place, set[int]] = {}
    for problem in problems:
        path, kind = problem["loc"], problem["type"]
        if kind == "extra_forbidden":
            del _at(value, path[:-1])[path[-1]]
            found[f"{_name(path[:-1])}: unknown keys left out"] += 1
        elif kind.endswith("too_long"):
            limit = problem["ctx"]["max_length"]
            owner = _at(value, path[:-1])
            owner[path[-1]] = owner[path[-1]][:limit]
            found[f"{_name(path)}: cut to {limit}"] += 1
        else:
            last = max(place for place, step in enumerate(path) if isinstance(step, int))
            refused.setdefault(path[:last], set()).add(int(path[last]))
    for path in sorted(refused, key=len, reverse=True):  # the inner lists first: their place holds
        items = _at(value, path)
        items[:] = [item for index, item in enumerate(items) if index not in refused[path]]
        found[f"{_name(path)}: items left out"] += len(refused[path])
    return [f"{what} ({count})" for what, count in found.items()]


def _at(value: Any, path: Place) -> Any:
    for step in path:
        value = value[step]
    return value


def _name(path: Place) -> str:
    return ".".join(step for step in path if isinstance(step, str)) or "answer"
