"""How fast the models are, compared with one of them.

Wall time says little on a shared machine, so process CPU time is taken; models take turns on the
same texts, and only ratios within a round are compared (shared measurements: facts of the parts).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from data.errors import MetricError
from training.evaluation.intervals import draw_resamples, interval

ROUNDS: Final = 7
MOST_TEXTS: Final = 128

Answer = Callable[[Sequence[str]], object]


def compare_speed(
    models: Mapping[str, Answer],
    texts: Sequence[str],
    *,
    reference: str,
    threads: int,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, Any]:
    """CPU time of each model on the same texts, and how many times faster than the reference.

    Args:
        models: what answers texts, by name.
        texts: up to ``MOST_TEXTS`` of them are drawn.
        reference: the model whose ratio is 1.
        threads: compute threads that the models were loaded with, for the record.
        rounds: turns that each model takes after one warm-up.
        seed: of the draw and the interval.

    Raises:
        MetricError: the reference is not among the models, or there is no text.
    """
    if reference not in models or not texts:
        raise MetricError(
            f"speed needs texts and the reference {reference!r} among {sorted(models)!r}"
        )
    generator = np.random.default_rng(seed)
    chosen = [texts[i] for i in generator.permutation(len(texts))[:MOST_TEXTS]]
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(rounds + 1):
        for name, answer in models.items():
            started = time.process_time()
            answer(chosen)
            if turn:
                seconds[name].append(time.process_time() - started)
    return {
        "reference": reference,
        "conditions": {
            "clock": "process CPU time",
            "rounds": rounds,
            "texts": len(chosen),
            "threads": threads,
            "order": "interleaved, one warm-up each",
        },
        "models": {
            name: _ratio(np.asarray(seconds[reference]), np.asarray(values), len(chosen), seed)
            for name, values in seconds.items()
        },
    }


def _ratio(reference: Any, seconds: Any, texts: int, seed: int) -> dict[str, Any]:
    ratios = reference / np.maximum(seconds, 1e-9)
    answer: dict[str, Any] = {
        "ratio": float(np.median(ratios)),
        "low": None,
        "high": None,
        "cpu_ms_per_text": float(np.median(seconds) / texts * 1000),
    }
    if len(ratios) > 1:
        drawn = draw_resamples([None] * len(ratios), resamples=1000, seed=seed).counts
        medians = np.asarray([np.median(np.repeat(ratios, counts)) for counts in drawn])
        answer["low"], answer["high"] = interval(medians, units=len(ratios))
    return answer
