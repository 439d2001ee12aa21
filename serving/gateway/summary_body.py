"""A summary as its caller is told it, and as the store keeps it."""

import time
from typing import Any, Final

from serving.gateway.language_schemas import SummaryIn
from serving.gateway.turns import Turn
from serving.summaries import SummaryOutcome

SUMMARY: Final = "/v1/summary"


def summary_body(asked: SummaryIn, outcome: SummaryOutcome, turn: Turn) -> dict[str, Any]:
    """The answer to the caller."""
    arm, deployment = turn.loaded.arm, turn.deployment
    return {
        "request_id": turn.request_id,
        "experiment_id": deployment.experiment_id,
        "deployment_id": deployment.deployment_id,
        "restaurant_id": asked.restaurant_id,
        "arm": arm.name,
        "model": {"name": arm.model_name, "version": arm.version},
        "prompts": outcome.prompt_versions,
        "status": outcome.status,
        "reasons": outcome.reasons,
        "notes": outcome.notes,
        "summary": outcome.summary.model_dump(mode="json") if outcome.summary else None,
        "strengths": outcome.strengths.model_dump(mode="json") if outcome.strengths else None,
        "tokens": {"prompt": outcome.prompt_tokens, "completion": outcome.completion_tokens},
        "timings_ms": outcome.timings_ms | {"total": (time.perf_counter() - turn.started) * 1000},
    }


def summary_facts(outcome: SummaryOutcome) -> dict[str, Any]:
    """What the store keeps: no words of anybody."""
    aspects = outcome.summary.aspects if outcome.summary else {}
    praised = outcome.strengths.representative if outcome.strengths else ()
    return {
        "task": SUMMARY,
        "status": outcome.status,
        "prompts": outcome.prompt_versions,
        "aspects": {aspect: each.polarity for aspect, each in aspects.items()},
        "strengths": [each.aspect for each in praised],
        "reviews_read": len(outcome.routed),
    }
