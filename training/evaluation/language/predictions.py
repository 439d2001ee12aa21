"""predictions.jsonl: one row per item, repeat and contestant, from which figures are summed again.

    {"model", "repeat", "kind", "about", "aspect", "restaurant", "parts": {measure: [..]},
     "text", "free_text"}    of an example, or
    {…, "answer": {"status", "reasons", "summary", "strengths"}}    of a restaurant

Parts that are zero are left out. The gate pairs two models' rows by item.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from data.errors import ArtifactError
from data.manifest import write_text_atomically
from training.evaluation.language.gold import Gold, Item
from training.evaluation.language.restaurants import RestaurantAnswer
from training.evaluation.language.tally import Said, Tally


def write_predictions(
    path: Path, gold: Gold, said: Mapping[str, Said], tallies: Mapping[str, Tally]
) -> None:
    """Write predictions.jsonl."""
    rows = (
        orjson.dumps(row).decode()
        for name, tally in tallies.items()
        for row in _rows(name, gold, said[name], tally)
    )
    write_text_atomically(path, "".join(f"{row}\n" for row in rows))


def read_predictions(
    path: Path, answered: Mapping[str, Sequence[str]]
) -> tuple[list[Item], dict[str, Tally]]:
    """Read every contestant's parts back.

    Args:
        path: predictions.jsonl.
        answered: of each contestant, what it was asked and answers.

    Raises:
        ArtifactError: a contestant lacks rows, or was asked other items than the first.
    """
    items: dict[str, list[list[Item]]] = {}
    parts: dict[str, list[list[Any]]] = {}
    with path.open("rb") as file:
        for line in file:
            row = orjson.loads(line)
            name, repeat = row["model"], row["repeat"]
            for found in (items.setdefault(name, []), parts.setdefault(name, [])):
                found.extend([] for _ in range(len(found), repeat + 1))
            item = Item(row["kind"], row["about"], row["aspect"], row["restaurant"])
            items[name][repeat].append(item)
            parts[name][repeat].append(row["parts"])
    missing = sorted(set(answered) - set(items))
    if missing or not items:
        raise ArtifactError(f"{str(path)!r} has no rows of {missing!r}; evaluate again")
    first = next(iter(items.values()))[0]
    for name, repeats in items.items():
        if any(asked != first for asked in repeats):
            raise ArtifactError(
                f"{str(path)!r}: {name!r} was asked other items than the first model; evaluate "
                "all of them on the same part"
            )
    tallies = {name: Tally(parts[name], frozenset(kinds)) for name, kinds in answered.items()}
    return first, tallies


def _rows(name: str, gold: Gold, said: Said, tally: Tally) -> Iterator[dict[str, Any]]:
    for repeat, parts in enumerate(tally.rows):
        for number, (item, found) in enumerate(zip(gold.items, parts, strict=True)):
            yield {
                "model": name,
                "repeat": repeat,
                "kind": item.kind,
                "about": item.about,
                "aspect": item.aspect,
                "restaurant": item.restaurant,
                "parts": {measure: values for measure, values in found.items() if any(values)},
            } | _words(gold, said, repeat, number)


def _words(gold: Gold, said: Said, repeat: int, number: int) -> dict[str, Any]:
    place = number - len(gold.examples)
    if place >= 0:
        if repeat >= len(said.restaurants):
            return {}
        return {"answer": _restaurant(said.restaurants[repeat][place])}
    words: dict[str, Any] = {}
    if repeat < len(said.constrained):
        answer = said.constrained[repeat][number]
        words["text"] = None if answer is None else answer.text
    if repeat == 0 and said.free is not None and (free := said.free[number]) is not None:
        words["free_text"] = free.text
    return words


def _restaurant(answer: RestaurantAnswer) -> dict[str, Any]:
    summary, strengths = answer.summary, answer.strengths
    return {
        "status": answer.status,
        "reasons": list(answer.reasons),
        "summary": None if summary is None else summary.model_dump(mode="json"),
        "strengths": None if strengths is None else strengths.model_dump(mode="json"),
    }
