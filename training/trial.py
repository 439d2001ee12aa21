"""One trial of tuning, in a process of its own, so that all its memory is given back at its end.

    python -m training.trial JOB.json RESULTS

``JOB.json`` is a ``Job``; ``RESULTS`` is the number of an open file descriptor. For each rung the
trial trains on the training part, scores the task on the validation part, writes a line of JSON
there (``Rung``, or ``Refusal`` and no more), and waits on standard input for ``on``; anything else,
and the end of input, which comes when the process that started it dies, ends it. Scores are kept: a
trial that was cut off goes on from its last whole rung, and inside a rung from the trainer's own
checkpoint.
"""

import asyncio
import os
import queue
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, cast

import psutil
from pydantic import BaseModel, ConfigDict

from data.errors import DataUnfitError, MatjipError
from data.manifest import read_labelled_reviews, write_text_atomically
from training.language_recipe import LanguageRecipe
from training.recipe import Recipe
from training.search_space import AnyRecipe, Kind, recipe_digest, recipe_of, shortened

GO_ON: Final = "on"
PART: Final = "validation"
"""The only part that a trial is scored on; the test part is for the one model that is chosen."""


class Job(BaseModel):
    """What a trial is to do.

    Attributes:
        recipe: YAML text.
        data: of kind split (encoder) or targets (language).
        start: of kind encoder, or language_model.
        work: scores and checkpoints of all trials; survives a kill.
        shares: of the recipe's epochs, a rung each.
        scored_examples: how many validation reviews a language model is asked, at most.
    """

    model_config = ConfigDict(frozen=True)

    kind: Kind
    recipe: str
    data: Path
    start: Path
    work: Path
    shares: tuple[float, ...]
    scored_examples: int


class Rung(BaseModel):
    """What one training of a trial came to.

    Attributes:
        score: of the task, 0 to 1.
        seconds: of training and scoring.
        peak_bytes: of the trial's process so far.
    """

    model_config = ConfigDict(frozen=True)

    share: float
    score: float
    seconds: float
    peak_bytes: int


class Refusal(BaseModel):
    """Why a trial has no score."""

    model_config = ConfigDict(frozen=True)

    reason: str


def climb(job: Job, share: float) -> Rung:
    """Train for a share of the epochs and score; what was scored before is not trained again.

    Raises:
        MatjipError: the trainer or the scoring refused.
    """
    recipe = shortened(job.kind, recipe_of(job.kind, job.recipe), share)
    digest = recipe_digest(recipe)[:16]
    kept = job.work / "scores" / f"{digest}.json"
    if kept.is_file():
        return Rung.model_validate_json(kept.read_bytes())
    started = time.perf_counter()
    model = job.work / "models" / digest
    shutil.rmtree(model, ignore_errors=True)
    score = SCORERS[job.kind](job, recipe, model)
    shutil.rmtree(model)
    rung = Rung(
        share=share,
        score=score,
        seconds=time.perf_counter() - started,
        peak_bytes=peak_bytes(),
    )
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(kept, rung.model_dump_json())
    return rung


def score_encoder(job: Job, recipe: AnyRecipe, model: Path) -> float:
    """Macro-F1 of the three sentiments on the validation part.

    Raises:
        DataUnfitError: the validation part has no sentiment.
    """
    from training.sentiment import train_sentiment

    mine = cast("Recipe", recipe)  # the kind decides it
    train_sentiment(job.data, job.start, mine, model, checkpoints=job.work / "checkpoints")
    return sentiment_score(model, job.data, threads=mine.threads)


def sentiment_score(model: Path, split: Path, *, threads: int) -> float:
    """Macro-F1 of the three sentiments, over those that the validation part has.

    Raises:
        DataUnfitError: it has none.
    """
    from data.contract import SENTIMENTS
    from serving.analyzer import load_analyzer
    from serving.engines.choice import PLAIN
    from training.evaluation.gold import gold_arrays, in_contract_order
    from training.evaluation.intervals import point
    from training.evaluation.weighted import macro_f1

    rows = list(read_labelled_reviews(split / f"{PART}.jsonl"))
    gold = gold_arrays(rows)
    if not gold.labelled("sentiment").any():
        raise DataUnfitError(
            f"the {PART} part has {len(rows)} reviews and no sentiment, so trials cannot be told "
            "apart; label more reviews, or split again with a larger validation_share"
        )
    analyzer = load_analyzer(model, engine=PLAIN, threads=threads)
    chances = in_contract_order(
        analyzer.probabilities([row.review.text for row in rows]),
        analyzer.spec.id2sentiment,
        analyzer.spec.id2intensity,
    )
    said = chances.sentiment.argmax(axis=1)
    return point(len(rows), macro_f1(gold.sentiment, said, len(SENTIMENTS)))


def score_language(job: Job, recipe: AnyRecipe, model: Path) -> float:
    """Mean score of the labels task on the validation part, decoding constrained as in serving.

    Raises:
        DataUnfitError: the validation part has no labels to ask for.
    """
    from training.llm import train_language_model

    mine = cast("LanguageRecipe", recipe)  # the kind decides it
    train_language_model(job.data, job.start, mine, model, checkpoints=job.work / "checkpoints")
    return labels_score(
        job.start, model, job.data, most=job.scored_examples, threads=recipe.threads
    )


def labels_score(base: Path, adapter: Path, targets: Path, *, most: int, threads: int) -> float:
    """Mean score of the labels task, of the first ``most`` examples in a drawn order.

    Of one review it is the mean of what is right of sentiment, intensity, categories, states and
    emotions (training/evaluation/language/counting.py).

    Raises:
        DataUnfitError: the validation part has no labels to ask for.
    """
    import torch

    from data.answers import decoding_schema
    from data.targets import read_examples
    from serving.engines.chat import ChatRequest
    from serving.engines.chat_transformers import TransformersChatEngine
    from serving.language_model import load_language_model
    from training.answer_scores import pick_examples
    from training.evaluation.language.tally import constrained_parts

    examples = [each for each in read_examples(targets / f"{PART}.jsonl") if each.task == "labels"]
    if not examples:
        raise DataUnfitError(
            f"the {PART} part of {str(targets)!r} has no labels, so trials cannot be told apart; "
            "split again with a larger validation_share"
        )
    asked = pick_examples(examples, seed=0)[:most]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(threads)
    engine = TransformersChatEngine(load_language_model(base, adapter=adapter, device=device))
    requests = [
        ChatRequest(each.messages, schema=decoding_schema(each.task, each.numbered))
        for each in asked
    ]
    try:
        answers = asyncio.run(engine.complete(requests))
    finally:
        engine.close()
    scores = [
        constrained_parts(example, answer)["score"][0]
        for example, answer in zip(asked, answers, strict=True)
    ]
    return sum(scores) / len(scores)


SCORERS: Final[dict[Kind, Callable[[Job, AnyRecipe, Path], float]]] = {
    "encoder": score_encoder,
    "language": score_language,
}
MEASURES: Final[dict[Kind, str]] = {
    "encoder": "three_class_macro_f1",
    "language": "labels_score",
}
"""What a kind is scored by, as evaluation's reports name it."""


def peak_bytes() -> int:
    """The most memory that this process held at once.

    Not from ``getrusage``: across an exec it still counts the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)


def _answers() -> "queue.Queue[str]":
    """What the starting process says, line by line; its death ends this process at once."""
    said: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        # Not through sys.stdin, whose lock a waiting thread would still hold at the end.
        while line := os.read(0, 64):
            said.put(line.decode().strip())
        os._exit(1)  # nobody waits for the result; a rung may have hours to go

    threading.Thread(target=listen, daemon=True).start()
    return said


def main(arguments: Sequence[str]) -> None:
    """Climb the rungs of a job, as far as the starting process wants.

    Args:
        arguments: path of the job, number of the file descriptor for results.
    """
    job = Job.model_validate_json(Path(arguments[0]).read_bytes())
    answers = _answers()
    with os.fdopen(int(arguments[1]), "w", encoding="utf-8") as results:
        for share in job.shares:
            try:
                rung = climb(job, share)
            except MatjipError as error:
                # First the log: who reads the refusal may end this process at once.
                traceback.print_exc()
                sys.stderr.flush()
                print(Refusal(reason=str(error)).model_dump_json(), file=results, flush=True)
                raise SystemExit(1) from error
            print(rung.model_dump_json(), file=results, flush=True)
            if share != job.shares[-1] and answers.get() != GO_ON:
                break


if __name__ == "__main__":
    main(sys.argv[1:])
