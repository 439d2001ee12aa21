"""The gold corpus is what its card says. To write its figures: python tests/data/test_gold.py."""

from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np

from data.contract import ASPECTS, EMOTIONS, INTENSITIES, PHENOMENA, SENTIMENTS
from data.near_duplicates import near_duplicate_pairs
from data.quality import contradictions
from data.snapshot import ingest_labels
from data.sources.label_studio import read_export
from data.sources.rows import SourceRow

GOLD = Path(__file__).resolve().parents[2] / "data" / "gold"
BEGIN, END = "<!-- figures -->\n", "<!-- /figures -->"


def _rows() -> list[SourceRow]:
    rows = list(read_export(GOLD / "reviews.json"))
    assert all(isinstance(row, SourceRow) for row in rows)
    return [row for row in rows if isinstance(row, SourceRow)]


def _share(count: int, total: int) -> str:
    return f"{count} ({100 * count / total:.1f}%)"


def _distinct(texts: list[str], n: int) -> float:
    grams = list(
        chain.from_iterable(
            zip(*(words[k:] for k in range(n)), strict=False)
            for words in (text.split() for text in texts)
        )
    )
    return len(set(grams)) / len(grams)


def near_duplicate_share(texts: list[str]) -> float:
    pairs = near_duplicate_pairs(texts, threshold=0.7)
    members = {int(index) for pair in pairs for index in (pair.first, pair.second)}
    return len(members) / len(texts)


def figures(agreement: dict[str, float | None]) -> str:
    rows = _rows()
    labels = [row.annotations[0].label for row in rows]
    texts = [row.review.text for row in rows]
    n = len(rows)
    sentiment = Counter(label.sentiment for label in labels)
    intensity = Counter(label.intensity for label in labels)
    emotions = Counter(chain.from_iterable(label.emotions or () for label in labels))
    aspects = Counter(chain.from_iterable(label.aspects or {} for label in labels))
    states = Counter(chain.from_iterable((label.aspects or {}).values() for label in labels))
    phenomena = Counter(chain.from_iterable(label.phenomena for label in labels))
    lengths = np.percentile([len(text) for text in texts], [5, 25, 50, 75, 95, 99, 100])
    restaurants = {row.review.restaurant_id for row in rows}
    lines = {
        "reviews": str(n),
        "restaurants": str(len(restaurants)),
        "labelled a second time": str(sum(len(row.annotations) > 1 for row in rows)),
        "characters p5, p25, p50, p75, p95, p99, longest": ", ".join(f"{x:.0f}" for x in lengths),
        "sentiment": ", ".join(f"{s} {_share(sentiment[s], n)}" for s in SENTIMENTS),
        "intensity": ", ".join(f"{i:+d} {_share(intensity[i], n)}" for i in INTENSITIES),
        "no emotion": _share(sum(not label.emotions for label in labels), n),
        "emotions": ", ".join(f"{e} {emotions[e]}" for e in EMOTIONS),
        "aspects": ", ".join(f"{a} {_share(aspects[a], n)}" for a in ASPECTS),
        "aspect polarities": ", ".join(f"{s} {states[s]}" for s in sorted(states)),
        "phenomena": ", ".join(f"{p} {_share(phenomena[p], n)}" for p in PHENOMENA),
        "in a near-duplicate pair (Jaccard of character 3-grams ≥ 0.7)": (
            f"{100 * near_duplicate_share(texts):.2f}%"
        ),
        "distinct words, pairs, triples of words": ", ".join(
            f"{_distinct(texts, k):.3f}" for k in (1, 2, 3)
        ),
        "Krippendorff's alpha of the two passes": ", ".join(
            f"{task} {alpha:.3f}" for task, alpha in agreement.items() if alpha is not None
        ),
    }
    table = "".join(f"| {name} | {value} |\n" for name, value in lines.items())
    return f"| figure | value |\n|---|---|\n{table}"


def _agreement(folder: Path) -> dict[str, float | None]:
    source = str(GOLD / "reviews.json")
    facts = ingest_labels(source, "label_studio_file", None, "1.0", folder).facts
    assert facts["rows_in"] == facts["accepted"]
    return dict(facts["agreement"])


def test_the_card_says_what_is_there(tmp_path: Path) -> None:
    card = (GOLD / "card.md").read_text(encoding="utf-8")
    shown = card.split(BEGIN)[1].split(END)[0]
    assert shown == figures(_agreement(tmp_path / "snapshot"))


def test_it_is_large_enough_and_nothing_is_written_twice() -> None:
    rows = _rows()
    assert len(rows) >= 800
    assert len({row.review.restaurant_id for row in rows}) >= 40
    assert sum(len({a.annotator for a in row.annotations}) > 1 for row in rows) >= 200
    texts = [row.review.text for row in rows]
    assert len(set(texts)) == len(texts)
    assert near_duplicate_share(texts) < 0.01


def test_every_phenomenon_has_its_share() -> None:
    rows = _rows()
    seen = Counter(chain.from_iterable(row.annotations[0].label.phenomena for row in rows))
    assert min(seen[name] / len(rows) for name in PHENOMENA) >= 0.05


def test_no_label_contradicts_another() -> None:
    found = [
        (row.review.review_id, contradictions(annotation.label))
        for row in _rows()
        for annotation in row.annotations
        if contradictions(annotation.label)
    ]
    assert found == []


def test_every_restaurant_is_described() -> None:
    for row in _rows():
        assert row.restaurant is not None
        assert row.review.written_on is not None


def test_the_card_says_what_the_texts_are() -> None:
    card = (GOLD / "card.md").read_text(encoding="utf-8")
    assert "composed for this project with the help of a language model" in card
    assert "not diners' reviews" in card
    assert "restaurants do not exist" in card


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        card = GOLD / "card.md"
        before, rest = card.read_text(encoding="utf-8").split(BEGIN)
        table = figures(_agreement(Path(folder) / "snapshot"))
        card.write_text(before + BEGIN + table + END + rest.split(END)[1], encoding="utf-8")
