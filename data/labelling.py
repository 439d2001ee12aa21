"""The labelling config of Label Studio, made from the contract, and labels to and from its results.

The config shows Korean words and stores the contract's codes (``alias``), so that an export needs
no translation. A task that was not labelled and an empty one differ: annotators say "none" where
no emotion or no aspect is there, and only then is the empty set a label.

Source of the format: Label Studio's tags ``Choices``, ``Labels`` and its JSON export.
"""

from collections.abc import Sequence
from typing import Any, Final, get_args
from xml.sax.saxutils import quoteattr

from pydantic import ValidationError

from data.contract import (
    ASPECTS,
    CONTRACT_VERSION,
    EMOTIONS,
    INTENSITIES,
    KOREAN,
    PHENOMENA,
    POLARITIES,
    SENTIMENTS,
    AspectPolarity,
    Evidence,
    Label,
)
from data.quarantine import RowError, row_error, shown

TEXT: Final = "text"
NONE: Final = "none"
ASPECT_POLARITIES: Final[tuple[AspectPolarity, ...]] = get_args(AspectPolarity)

_PHENOMENA_KOREAN: Final[dict[str, str]] = {
    "slang": "은어·신조어",
    "typo": "오타",
    "spacing": "띄어쓰기",
    "emoji": "이모지·ㅋㅋ·ㅠㅠ",
    "sarcasm": "반어",
    "negation": "부정 표현",
    "mixed": "칭찬과 불만 함께",
    "delivery": "배달",
    "factual": "사실 정보",
}
_COLOURS: Final[dict[str, str]] = {
    "negative": "#c0392b",
    "neutral": "#7f8c8d",
    "positive": "#27ae60",
}
# Controls with one choice, and those with several; evidence is the only control of another kind.
_SINGLE: Final[dict[str, tuple[str, ...]]] = {
    "sentiment": SENTIMENTS,
    "intensity": tuple(str(step) for step in INTENSITIES),
    **{f"aspect_{aspect}": ASPECT_POLARITIES for aspect in ASPECTS},
    "aspects": (NONE,),
}
_MULTIPLE: Final[dict[str, tuple[str, ...]]] = {
    "emotions": (*EMOTIONS, NONE),
    "phenomena": PHENOMENA,
}
_SPANS: Final[tuple[str, ...]] = tuple(
    f"{aspect}:{polarity}" for aspect in ASPECTS for polarity in POLARITIES
)
_FREE_TEXT: Final = "textarea"
"""An annotator's note to the team: read by people, never a label."""


def _element(tag: str, attributes: dict[str, str], children: Sequence[str] = ()) -> str:
    head = "".join(f" {name}={quoteattr(value)}" for name, value in attributes.items())
    if not children:
        return f"<{tag}{head}/>"
    inside = "\n".join(children).replace("\n", "\n  ")
    return f"<{tag}{head}>\n  {inside}\n</{tag}>"


def _choices(name: str, title: str, options: dict[str, str], **attributes: str) -> str:
    listed = [
        _element("Choice", {"value": korean, "alias": code, "hint": code})
        for code, korean in options.items()
    ]
    control = {"name": name, "toName": TEXT, "showInline": "true", **attributes}
    return "\n".join([_element("Header", {"value": title}), _element("Choices", control, listed)])


def labelling_config() -> str:
    """The labelling config (XML) for a Label Studio project of this contract."""
    required = {"required": "true", "requiredMessage": "하나를 고르세요"}
    spans = [
        _element(
            "Label",
            {
                "value": f"{KOREAN[aspect]} {KOREAN[polarity]}",
                "alias": f"{aspect}:{polarity}",
                "background": _COLOURS[polarity],
            },
        )
        for aspect in ASPECTS
        for polarity in POLARITIES
    ]
    emotions = {emotion: KOREAN[emotion] for emotion in EMOTIONS} | {NONE: "감정 없음"}
    parts = [
        f"<!-- matjip contract {CONTRACT_VERSION} -->",
        _element("Header", {"value": "근거: 측면과 극성을 고르고 글에서 표시"}),
        _element("Labels", {"name": "evidence", "toName": TEXT}, spans),
        _element("Text", {"name": TEXT, "value": f"${TEXT}"}),
        _choices(
            "sentiment", "감성", {s: KOREAN[s] for s in SENTIMENTS}, choice="single", **required
        ),
        _choices(
            "intensity",
            "강도",
            {str(step): KOREAN[str(step)] for step in INTENSITIES},
            choice="single",
            **required,
        ),
        _choices("emotions", "감정", emotions, choice="multiple", **required),
        *(
            _choices(
                f"aspect_{aspect}",
                f"측면: {KOREAN[aspect]} (언급이 없으면 비움)",
                {polarity: KOREAN[polarity] for polarity in ASPECT_POLARITIES},
                choice="single",
            )
            for aspect in ASPECTS
        ),
        _choices("aspects", "언급된 측면이 하나도 없음", {NONE: "측면 없음"}, choice="single"),
        _choices("phenomena", "표현 특징", _PHENOMENA_KOREAN, choice="multiple"),
    ]
    return _element("View", {}, parts) + "\n"


def _choice_result(control: str, values: Sequence[str]) -> dict[str, Any]:
    return {
        "id": control,
        "from_name": control,
        "to_name": TEXT,
        "type": "choices",
        "value": {"choices": list(values)},
    }


def to_result(label: Label, text: str) -> list[dict[str, Any]]:
    """A label as the ``result`` of a Label Studio annotation.

    Raises:
        RowError: an evidence span is not what stands in the text.
    """
    result: list[dict[str, Any]] = []
    if label.sentiment is not None:
        result.append(_choice_result("sentiment", [label.sentiment]))
    if label.intensity is not None:
        result.append(_choice_result("intensity", [str(label.intensity)]))
    if label.emotions is not None:
        result.append(_choice_result("emotions", label.emotions or [NONE]))
    if label.aspects is not None:
        result.extend(
            _choice_result(f"aspect_{aspect}", [polarity])
            for aspect, polarity in label.aspects.items()
        )
        if not label.aspects:
            result.append(_choice_result("aspects", [NONE]))
    if label.phenomena:
        result.append(_choice_result("phenomena", label.phenomena))
    for number, evidence in enumerate(label.evidence):
        check_span(evidence, text)
        value = {
            "start": evidence.start,
            "end": evidence.end,
            "text": evidence.text,
            "labels": [f"{evidence.aspect}:{evidence.polarity}"],
        }
        result.append(
            {
                "id": f"evidence{number}",
                "from_name": "evidence",
                "to_name": TEXT,
                "type": "labels",
                "value": value,
            }
        )
    return result


def check_span(evidence: Evidence, text: str) -> None:
    """Refuse evidence that is not verbatim.

    Raises:
        RowError: ``text[start:end]`` is not the evidence's text.
    """
    found = text[evidence.start : evidence.end]
    if found != evidence.text:
        raise RowError(
            "span_not_in_text",
            f"evidence {shown(evidence.text)} is not the text at {evidence.start}:{evidence.end}, "
            f"which is {shown(found)}; mark the span again (offsets count code points)",
        )


def _read_values(entry: dict[str, Any], key: str, allowed: Sequence[str], name: str) -> list[str]:
    value = entry.get("value")
    values = value.get(key) if isinstance(value, dict) else None
    if not isinstance(values, list) or not values:
        raise RowError(
            "wrong_type",
            f"{name}: value.{key} is {shown(values)}, expected a list of codes; "
            "export the project again as JSON",
        )
    for code in values:
        if code not in allowed:
            raise RowError(
                "label_outside_set",
                f"{name} is {shown(code)}, which is outside the set {', '.join(allowed)}; "
                "choose one of them, or use the labelling config of this contract",
            )
    return values


def _utf16_span(text: str, start: int, end: int) -> str:
    units = text.encode("utf-16-le")
    return units[2 * start : 2 * end].decode("utf-16-le", "replace")


def _read_evidence(entry: dict[str, Any], text: str) -> list[Evidence]:
    codes = _read_values(entry, "labels", _SPANS, "evidence")
    value = entry["value"]
    start, end, span = value.get("start"), value.get("end"), value.get("text")
    if type(start) is not int or type(end) is not int or not isinstance(span, str):
        raise RowError(
            "wrong_type",
            f"evidence has start {shown(start)}, end {shown(end)} and text {shown(span)}, "
            "expected two whole numbers and a string; mark the span again",
        )
    if text[start:end] != span and 0 <= start < end and _utf16_span(text, start, end) == span:
        # Old releases of Label Studio count UTF-16 units, so each emoji before a span shifts it
        # (HumanSignal/label-studio#1347); the verbatim text proves which of the two was meant.
        start = len(text.encode("utf-16-le")[: 2 * start].decode("utf-16-le"))
        end = start + len(span)
    evidence = []
    for code in codes:
        aspect, polarity = code.split(":")
        try:
            item = Evidence.model_validate(
                {"aspect": aspect, "polarity": polarity, "start": start, "end": end, "text": span}
            )
        except ValidationError as error:
            raise row_error(error, "evidence") from error
        check_span(item, text)
        evidence.append(item)
    return evidence


def _read_choices(
    result: Sequence[object], text: str
) -> tuple[dict[str, list[str]], list[Evidence]]:
    chosen: dict[str, list[str]] = {}
    evidence: list[Evidence] = []
    for entry in result:
        if not isinstance(entry, dict) or not isinstance(entry.get("from_name"), str):
            raise RowError(
                "wrong_type",
                f"a result is {shown(entry)}, expected an object with from_name; export it again",
            )
        name = entry["from_name"]
        if str(entry.get("type", "")).lower() == _FREE_TEXT:
            continue
        if name == "evidence":
            evidence.extend(_read_evidence(entry, text))
            continue
        allowed = _SINGLE.get(name) or _MULTIPLE.get(name)
        if allowed is None:
            raise RowError(
                "label_outside_set",
                f"control {name!r} is not in the contract; "
                "use the labelling config of this contract",
            )
        values = _read_values(entry, "choices", allowed, name)
        if (
            name in chosen
            or (name in _SINGLE and len(values) > 1)
            or len(set(values)) < len(values)
        ):
            both = [*chosen.get(name, ()), *values]
            raise RowError(
                "labelled_twice",
                f"{name} is labelled more than once: {', '.join(both)}; keep one answer",
            )
        chosen[name] = values
    return chosen, evidence


def _with_none(chosen: Sequence[str] | None, name: str) -> list[str] | None:
    if chosen is None:
        return None
    if NONE in chosen and len(chosen) > 1:
        raise RowError(
            "labelled_twice",
            f"{name} says {NONE!r} and {', '.join(set(chosen) - {NONE})}; keep one of the two",
        )
    return [code for code in chosen if code != NONE]


def from_result(result: Sequence[object], text: str) -> Label:
    """The label in an annotation's ``result``.

    Raises:
        RowError: a ContractError whose ``reason`` says whether a code is outside the set, a span
            is not in the text, an answer was given twice, or nothing is labelled.
    """
    chosen, evidence = _read_choices(result, text)
    aspects = {
        aspect: chosen[f"aspect_{aspect}"][0] for aspect in ASPECTS if f"aspect_{aspect}" in chosen
    }
    if "aspects" in chosen and aspects:
        raise RowError(
            "labelled_twice",
            f"aspects say {NONE!r} and {', '.join(aspects)}; keep one of the two",
        )
    fields: dict[str, Any] = {
        "sentiment": chosen["sentiment"][0] if "sentiment" in chosen else None,
        "intensity": int(chosen["intensity"][0]) if "intensity" in chosen else None,
        "emotions": _with_none(chosen.get("emotions"), "emotions"),
        "aspects": aspects if aspects or "aspects" in chosen else None,
        "evidence": evidence,
        "phenomena": chosen.get("phenomena", ()),
    }
    if all(fields[task] is None for task in ("sentiment", "intensity", "emotions", "aspects")):
        raise RowError("unlabelled", "the annotation labels no task; label it, or skip the task")
    try:
        return Label.model_validate(fields)
    except ValidationError as error:
        raise row_error(error, "label") from error
