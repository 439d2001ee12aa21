"""Split: validated rows to train, validation and test, with no way from one side to the other.

Comes in: an artifact of kind ``validated``. Goes out: one of kind ``split`` with ``train.jsonl``,
``validation.jsonl``, ``test.jsonl`` and ``left_out.jsonl``. All reviews of a restaurant stand on
one side, and so do near-duplicates: a group of them that spans restaurants ties these restaurants.
Where such ties would make one lump of more than a fifth of the rows, the restaurants are not tied;
the duplicates on the smaller side of a group are left out instead, and counted. Moving them would
put one restaurant on two sides.

Sentiment is stratified as well as groups allow: scikit-learn's StratifiedGroupKFold makes folds,
folds make parts, and of several seeded shuffles the one nearest the wanted shares is taken.
"""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from data.artifacts import (
    DUPLICATES_NAME,
    LEFT_OUT_NAME,
    PARTS,
    REVIEWS_NAME,
    SPLIT_KIND,
    VALIDATED_KIND,
    class_balance,
)
from data.contract import SENTIMENTS, LabelledReview
from data.errors import DataUnfitError, LeakageError, SettingsError
from data.leakage import check_leakage
from data.manifest import (
    Manifest,
    read_labelled_reviews,
    read_manifest,
    start_artifact,
    write_labelled_reviews,
    write_manifest,
)
from data.near_duplicates import Unions

__all__ = ["LeakageError", "check_leakage", "split_dataset"]

LARGEST_TIE: Final = 0.2
"""Of the rows: a larger lump of tied restaurants leaves the parts no room."""
_FOLDS: Final = 20
_SHUFFLES: Final = 20
_NOBODY: Final = -1

GroupBy = Literal["restaurant", "none"]
Numbers = NDArray[np.int64]


def split_dataset(
    validated: Path, out: Path, fractions: Mapping[str, float], seed: int, group_by: GroupBy
) -> Manifest:
    """Split a validated artifact.

    Args:
        fractions: share of the rows for train, validation and test; they add up to 1, and a part
            of share 0 is empty.
        seed: equal seeds give equal splits.
        group_by: ``none`` where reviews have no restaurant; near-duplicates stay together then too.

    Raises:
        SettingsError: the fractions or group_by are wrong.
        DataUnfitError: there are too few groups for the parts.
        LeakageError: a part shares something with another (a bug here; the check runs every time).
        ArtifactError: the artifact is not whole, or ``out`` cannot be written.
    """
    shares = _check_settings(fractions, group_by)
    source = read_manifest(validated, VALIDATED_KIND)
    rows = list(read_labelled_reviews(validated / REVIEWS_NAME))
    duplicates = _read_duplicates(validated, rows)
    units, tied = _units(rows, duplicates, group_by)
    classes = _classes(rows)
    part_of = (_assign_groups if group_by == "restaurant" else _assign_units)(
        units, classes, shares, seed
    )
    part_of = _leave_out(part_of, duplicates)
    parts = {
        name: [row for row, part in zip(rows, part_of, strict=True) if part == number]
        for number, name in enumerate(PARTS)
    }
    left_out = [row for row, part in zip(rows, part_of, strict=True) if part == _NOBODY]
    check_leakage(
        parts,
        threshold=source.facts["policy"]["near_duplicate_threshold"],
        restaurants=group_by == "restaurant",
    )
    start_artifact(out)
    for name, members in parts.items():
        write_labelled_reviews(out / f"{name}.jsonl", members)
    write_labelled_reviews(out / LEFT_OUT_NAME, left_out)
    facts = _facts(parts, source, units, part_of) | {
        "seed": seed,
        "group_by": group_by,
        "fractions": dict(zip(PARTS, shares, strict=True)),
        "left_out": len(left_out),
        "duplicates_tie_restaurants": tied,
    }
    return write_manifest(out, SPLIT_KIND, facts)


def _check_settings(fractions: Mapping[str, float], group_by: str) -> list[float]:
    if group_by not in {"restaurant", "none"}:
        raise SettingsError(f"group_by is {group_by!r}, known are restaurant and none; choose one")
    shares = [float(fractions.get(name, 0.0)) for name in PARTS]
    unknown = sorted(set(fractions) - set(PARTS))
    if unknown or min(shares) < 0 or shares[0] <= 0 or abs(sum(shares) - 1) > 1e-6:  # noqa: PLR2004  # rounding
        raise SettingsError(
            f"fractions are {dict(fractions)!r}; give {', '.join(PARTS)} as shares that add up to "
            "1, train above 0"
        )
    return shares


def _read_duplicates(validated: Path, rows: Sequence[LabelledReview]) -> list[list[int]]:
    positions = {row.review.review_id: at for at, row in enumerate(rows)}
    with (validated / DUPLICATES_NAME).open("rb") as file:
        return [[positions[name] for name in orjson.loads(line)["review_ids"]] for line in file]


def _classes(rows: Sequence[LabelledReview]) -> Numbers:
    """Index of each row's sentiment; rows without one are a class of their own."""
    names = [*SENTIMENTS, None]
    return np.asarray([names.index(row.label.sentiment) for row in rows], dtype=np.int64)


def _units(
    rows: Sequence[LabelledReview], duplicates: Sequence[Sequence[int]], group_by: GroupBy
) -> tuple[Numbers, bool]:
    """What goes to one part as a whole, as a number per row; and whether duplicates tie units.

    A review without a restaurant is a unit by itself, or with its near-duplicates.
    """
    alone = Unions(len(rows))
    firsts: dict[str, int] = {}
    if group_by == "restaurant":
        for at, row in enumerate(rows):
            if row.review.restaurant_id is not None:
                alone.union(firsts.setdefault(row.review.restaurant_id, at), at)
    before = np.asarray([alone.find(at) for at in range(len(rows))], dtype=np.int64)
    for group in duplicates:
        for at in group[1:]:
            alone.union(group[0], at)
    after = np.asarray([alone.find(at) for at in range(len(rows))], dtype=np.int64)
    if group_by == "restaurant" and _ties_too_much(before, after):
        return before, False
    return after, bool((before != after).any())


def _ties_too_much(before: Numbers, after: Numbers) -> bool:
    """Whether one lump of several units has more than a fifth of the rows."""
    return any(
        (after == lump).sum() > LARGEST_TIE * len(after) and len(set(before[after == lump])) > 1
        for lump in set(after[before != after].tolist())
    )


def _assign_groups(units: Numbers, classes: Numbers, shares: Sequence[float], seed: int) -> Numbers:
    """Parts of rows whose units are few and of unequal size."""
    count = len(set(units.tolist()))
    wanted = sum(share > 0 for share in shares)
    if count < wanted:
        raise DataUnfitError(
            f"{count} groups cannot fill {wanted} parts; add restaurants, split with "
            "group_by 'none', or set a fraction to 0"
        )
    folds = min(_FOLDS, count)
    best: tuple[float, Numbers] | None = None
    for shuffle in range(_SHUFFLES):
        if folds > 1:
            found = _folds(units, classes, folds, seed * _SHUFFLES + shuffle)
        else:
            found = np.zeros_like(units)
        part_of = _folds_to_parts(found, folds, shares)
        distance = _distance(part_of, classes, shares)
        if best is None or distance < best[0]:
            best = distance, part_of
    if best is None:
        raise AssertionError("no shuffle was tried")
    return best[1]


def _folds(units: Numbers, classes: Numbers, folds: int, seed: int) -> Numbers:
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    fold_of = np.empty_like(units)
    with warnings.catch_warnings():
        # A class rarer than the folds is stratified as well as it can be; _distance judges it.
        warnings.filterwarnings("ignore", message="The least populated class")
        for number, (_, members) in enumerate(splitter.split(units, classes, units)):
            fold_of[members] = number
    return fold_of


def _folds_to_parts(fold_of: Numbers, folds: int, shares: Sequence[float]) -> Numbers:
    """Give each fold, largest first, to the part that lacks most rows; fill every wanted part."""
    sizes = np.bincount(fold_of, minlength=folds)
    lacking = np.asarray(shares) * len(fold_of)
    empty = {part for part, share in enumerate(shares) if share > 0}
    order = sorted(range(folds), key=lambda fold: (-sizes[fold], fold))
    part_of_fold = np.zeros(folds, dtype=np.int64)
    for done, fold in enumerate(order):
        candidates = empty if len(empty) >= folds - done else range(len(shares))
        part = max(candidates, key=lambda part: (lacking[part], -part))
        part_of_fold[fold] = part
        lacking[part] -= sizes[fold]
        empty.discard(part)
    return np.asarray(part_of_fold[fold_of])


def _distance(part_of: Numbers, classes: Numbers, shares: Sequence[float]) -> float:
    """How far each class's share in each part is from the wanted one, summed."""
    total = 0.0
    for name in np.unique(classes):
        members = part_of[classes == name]
        found = np.bincount(members, minlength=len(shares)) / len(members)
        total += float(np.abs(found - np.asarray(shares)).sum())
    return total


def _assign_units(units: Numbers, classes: Numbers, shares: Sequence[float], seed: int) -> Numbers:
    """Parts of rows whose units are many and nearly all single: stratified by the first's class."""
    firsts = np.unique(units)
    wanted = sum(share > 0 for share in shares)
    if len(firsts) < wanted:
        raise DataUnfitError(f"{len(firsts)} rows cannot fill {wanted} parts; label more reviews")
    part_of = np.zeros(len(units), dtype=np.int64)
    rest, left = firsts, 1.0
    for part in (2, 1):
        if shares[part] > 0:
            rest, taken = _cut(rest, classes[rest], shares[part] / left, seed)
            part_of[taken] = part
            left -= shares[part]
    return np.asarray(part_of[units])


def _cut(members: Numbers, classes: Numbers, share: float, seed: int) -> tuple[Numbers, Numbers]:
    size = min(max(1, round(share * len(members))), len(members) - 1)
    counts = Counter(classes.tolist())
    fits = min(counts.values()) > 1 and len(counts) <= min(size, len(members) - size)
    rest, taken = train_test_split(
        members, test_size=size, random_state=seed, stratify=classes if fits else None
    )
    return rest, taken


def _leave_out(part_of: Numbers, duplicates: Sequence[Sequence[int]]) -> Numbers:
    """Parts with near-duplicates on one side: of a group that spans parts, the smaller sides go."""
    kept = part_of.copy()
    for group in duplicates:
        counts = Counter(part_of[at] for at in group)
        stays = max(counts, key=lambda part: (counts[part], -part))
        for at in group:
            if part_of[at] != stays:
                kept[at] = _NOBODY
    return kept


def _facts(
    parts: Mapping[str, Sequence[LabelledReview]],
    source: Manifest,
    units: Numbers,
    part_of: Numbers,
) -> dict[str, Any]:
    return {
        "snapshot_id": source.facts["snapshot_id"],
        "guideline_version": source.facts["guideline_version"],
        "rows": {name: len(rows) for name, rows in parts.items()},
        "groups": {
            name: len(np.unique(units[part_of == number])) for number, name in enumerate(PARTS)
        },
        "restaurants": {
            name: len({row.review.restaurant_id for row in rows} - {None})
            for name, rows in parts.items()
        },
        "class_balance": {name: class_balance(rows) for name, rows in parts.items()},
    }
