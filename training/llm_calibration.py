"""What a language model is calibrated on: prompts and answers of the training part alone.

Calibration decides scales, so a text of the test part among them would leak into every figure. The
texts are checked against the other parts before anything is loaded, and their digest is recorded.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from data.artifacts import SPLIT_KIND, TARGETS_KIND
from data.errors import ArtifactError, LeakageError
from data.examples import Example, read_examples
from data.leakage import check_leakage, read_parts
from data.manifest import canonical_digest, read_manifest
from data.prompts import INSTRUCTIONS
from data.text import normalised
from training.answer_scores import Picked, Rendered, load_tokenizer, pick_examples, render_examples

HELD_OUT: Final = ("test", "validation")
_NUMBER: Final = re.compile(r" #\d+")


@dataclass(frozen=True)
class Calibration:
    """Rendered texts, and what is recorded of them."""

    rendered: list[Rendered]
    facts: dict[str, Any]


def calibration_set(
    model: Path, targets: Path, split: Path | None, *, samples: int, seed: int, max_tokens: int
) -> Calibration:
    """Draw and check the texts that a model is calibrated on.

    Args:
        model: folder whose tokenizer renders them.
        targets: artifact of kind targets; only its training part is drawn from.
        split: the split that the targets were built from: then reviews are compared too, with
            near-duplicates. None compares the prompts alone.
        samples: how many are wanted; fewer where the training part has no more.
        seed: of the choice.
        max_tokens: the model's context.

    Raises:
        LeakageError: a text stands in the test or validation part as well.
        ArtifactError: an input is missing or altered, or the split is another one.
        DataUnfitError: no example fits the context.
    """
    source = read_manifest(targets, TARGETS_KIND)
    examples = pick_examples(read_examples(targets / "train.jsonl"), seed)
    picked: Picked = render_examples(
        load_tokenizer(model), examples, count=samples, max_tokens=max_tokens
    )
    chosen = [each.example for each in picked.rendered]
    for part in HELD_OUT:
        check_prompts_apart(chosen, read_examples(targets / f"{part}.jsonl"), part)
    if split is not None:
        _check_reviews_apart(chosen, split, source.facts.get("split_digest"))
    return Calibration(
        picked.rendered,
        {
            "digest": canonical_digest([each.text for each in picked.rendered]),
            "examples": len(picked.rendered),
            "tokens": sum(len(each.ids) for each in picked.rendered),
            "left_out_too_long": len(picked.too_long),
            "seed": seed,
            "targets_digest": source.digest,
            "split_digest": source.facts.get("split_digest"),
            "reviews_compared": split is not None,
        },
    )


def material(example: Example) -> str:
    """What a prompt is about: without the instructions, its numbers, and spacing of the text."""
    prompt = example.messages[-1]["content"]
    return normalised(_NUMBER.sub("", prompt.removeprefix(INSTRUCTIONS[example.task])))


def check_prompts_apart(
    calibration: Sequence[Example], held_out: Sequence[Example], part: str
) -> None:
    """Refuse calibration on what a held-out part asks.

    Raises:
        LeakageError: a prompt, a review or a restaurant stands in both.
    """
    asked = {(each.task, material(each)): each.about for each in held_out}
    about = {each.about for each in held_out}
    for example in calibration:
        other = asked.get((example.task, material(example)))
        if other is not None or example.about in about:
            raise LeakageError(
                f"calibration example {example.about!r} ({example.task}) stands in the {part} part "
                f"too, as {(other or example.about)!r}; build the targets again from a split whose "
                "parts share nothing"
            )


def _check_reviews_apart(calibration: Sequence[Example], split: Path, digest: object) -> None:
    manifest = read_manifest(split, SPLIT_KIND)
    if manifest.digest != digest:
        raise ArtifactError(
            f"{str(split)!r} has digest {manifest.digest!r}, the targets were built from "
            f"{digest!r}; pass their own split"
        )
    parts = read_parts(split)
    about = {each.about for each in calibration}
    known = {
        name for row in parts["train"] for name in (row.review.review_id, row.review.restaurant_id)
    }
    if strangers := sorted(about - known):
        raise LeakageError(
            f"calibration example {strangers[0]!r} is about nothing in the training part of "
            f"{str(split)!r}; build the targets again"
        )
    used = [
        row
        for row in parts["train"]
        if row.review.review_id in about or row.review.restaurant_id in about
    ]
    check_leakage(
        {"calibration": used, **{part: parts[part] for part in HELD_OUT}},
        restaurants=manifest.facts.get("group_by") != "none",
    )
