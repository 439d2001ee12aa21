"""Reviews, the labels task over one of them, and what an engine answers.

Loaded by path (`runpy.run_path`): tests are no package.
"""

import asyncio
from typing import Any

from data.answers import decoding_schema
from data.clauses import split_clauses
from data.prompts import labels_prompt
from serving.engines.chat import ChatAnswer, ChatEngine, ChatRequest

REVIEWS = [
    "국물이 진해요",
    "직원이 불친절하고 대기가 길어요. 그래도 고기는 부드러워요!",
    "ㅠㅠ",
    "가격이 비싸요. 다시는 안 가요. 주차도 어렵고 화장실도 지저분했어요.",
    "존맛 JMT 👍",
]


def ask(review: str, **options: Any) -> ChatRequest:
    """The labels task over one review, constrained."""
    clauses = split_clauses(review)
    given = {"schema": decoding_schema("labels", len(clauses)), "max_tokens": 400} | options
    return ChatRequest(labels_prompt(clauses), **given)


def free(review: str, **options: Any) -> ChatRequest:
    return ask(review, **{"schema": None, "max_tokens": 12} | options)


def answers(engine: ChatEngine, *requests: ChatRequest) -> list[ChatAnswer]:
    return asyncio.run(engine.complete(requests))
