"""The form of what a model said: does it parse, obey, cite what there is, and stay Korean.

Every function gives additive parts (``[hits, of]``) of one answer, so that shares can be taken over
any set of answers. Form says nothing about truth: an empty skeleton obeys every schema.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from data.answer_repair import repaired_json
from data.answers import Reading
from data.prompts import Task
from serving.engines.chat import ChatAnswer

Parts = dict[str, list[float]]
"""Measure to its additive parts."""

PRODUCT_WORDS: Final = frozenset(
    {"ai", "bbq", "bgm", "bhc", "cctv", "cgv", "dj", "diy", "etc", "gs", "hmr", "ipa", "jmt"}
    | {"jmtgr", "kfc", "ktx", "la", "lp", "mbti", "md", "mz", "ok", "ost", "pc", "pos", "qr"}
    | {"sns", "tmi", "tv", "vip", "wifi", "xo"}
)
"""Latin words that Korean diners write as they are; a word of the prompt counts as one too."""
_LATIN_WORD: Final = re.compile(r"[A-Za-zＡ-Ｚａ-ｚ]+")
_HANGUL: Final = re.compile("[\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7a3\ud7b0-\ud7ff]")
_SAID: Final = frozenset({"text", "sentence", "overall", "claim"})
_REFERRING: Final = frozenset({"clause", "evidence"})


def form_parts(task: Task, answer: ChatAnswer, reading: Reading[Any], numbered: int) -> Parts:
    """What one answer's form is worth, as it stood.

    Args:
        task: an aspect's summary must cite something; a label or no strength need not.
        answer: as the engine gave it.
        reading: of its text.
        numbered: lines that its prompt numbers; with none, citations are not counted.
    """
    parts = {
        "failed": _share(answer.error is not None),
        "cut": _share(answer.finish_reason == "length"),
        "parsed": _share(reading.parsed),
        "obeyed": _share(reading.obeyed),
        "saved": _share(reading.answer is not None),
    }
    if numbered:
        known = {f"#{number}" for number in range(1, numbered + 1)}
        cited = list(_references(orjson.loads(answer.text))) if reading.parsed else []
        enough = bool(cited) or task != "aspect"
        parts["cited"] = _share(reading.parsed and enough and known.issuperset(cited))
    return parts


def drift_parts(text: str, prompt: str) -> Parts:
    """Letters of the generated fields that are not Hangul.

    Digits are no letters. Latin words that diners use, or that the prompt holds, are counted apart:
    naming an "LA갈비" is no drift.

    Args:
        text: of one answer; its fields if it can be read as a JSON object, else all of it.
        prompt: what the model was shown.
    """
    return drift_of("\n".join(_fields(text)), prompt)


def drift_of(words: str, prompt: str) -> Parts:
    """The same for words that already stand free of JSON."""
    letters = [each for each in words if unicodedata.category(each).startswith("L")]
    shown = {word.lower() for word in _LATIN_WORD.findall(prompt)} | PRODUCT_WORDS
    latin = [word for word in _LATIN_WORD.findall(words) if word.lower() in shown]
    product = sum(map(len, latin))
    foreign = sum(_HANGUL.match(each) is None for each in letters) - product
    return {"drift": [foreign, len(letters)], "latin": [product, len(letters)]}


def as_measures(parts: Mapping[str, list[float]], prefix: str) -> Parts:
    """Parts under names that tell one pass from the other."""
    return {f"{prefix}_{name}": values for name, values in parts.items()}


def _share(hit: bool) -> list[float]:  # noqa: FBT001  # the one thing it says
    return [float(hit), 1.0]


def _fields(text: str) -> Iterator[str]:
    value = repaired_json(text, [])
    yield from _said(value) if isinstance(value, dict) and value else (text,)


def _said(node: Any, key: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for name, each in node.items():
            yield from _said(each, name)
    elif isinstance(node, list):
        for each in node:
            yield from _said(each, key)
    elif isinstance(node, str) and key in _SAID:
        yield node


def _references(node: Any, key: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for name, each in node.items():
            yield from _references(each, name)
    elif isinstance(node, list):
        for each in node:
            yield from _references(each, key)
    elif key in _REFERRING:
        yield str(node)
