"""Personal data in reviews: found by its Korean forms, and masked in place.

Every letter and digit of a match becomes ``*``; separators stay. So a mask is as long as what it
covers, in code points, and evidence offsets still hold: only the evidence's words are read again.
Prices, dates, times and quantities are left alone: they have other groups of digits, or a unit.

Sources: number plans of the KCC (mobile 01X, area codes 02 and 031 to 064, 070, 050X), resident
registration numbers (YYMMDD-SNNNNNN, valid month and day), ISO/IEC 7812 with the Luhn digit for
cards, account forms of Korean banks (10 to 14 digits in two to four groups).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from data.contract import Evidence, Label, LabelledReview

PersonalData = Literal["resident_number", "card", "phone", "email", "account"]
KINDS: Final[tuple[PersonalData, ...]] = ("resident_number", "card", "phone", "email", "account")
MASK: Final = "*"

_GAP: Final = r"[\s.\-‐-―~·/)]{0,3}"
"""Between the groups of a number: nothing, spaces, dots, dashes of any width."""
_START: Final = r"(?<![\d*])(?<!\d[.,\-])"
_END: Final = r"(?![\d*])(?![.,]\d)"
_UNIT: Final = r"(?!\s*(?:원|만|천|억|개|명|년|월|일|시|분|인분|그릇|kcal|ml|g\b|kg\b|km\b))"

_RESIDENT: Final = re.compile(
    rf"{_START}\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\s?[\-‐-―]?\s?[1-8]\d{{6}}{_END}"
)
_CARD: Final = re.compile(
    rf"{_START}[3-6]\d{{3}}(?:[\s\-‐-―]?\d{{4}}){{2}}[\s\-‐-―]?\d{{3,4}}{_END}"
)
_AREA: Final = r"(?:2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|70|50\d)"
_PHONE: Final = re.compile(
    rf"{_START}(?:"
    rf"(?:\+\s?82|(?<!\d)0082|(?<!\d)82(?=[\s.\-]))[\s.\-(]{{0,2}}0?[)]?"
    rf"(?:1[016789]|{_AREA}){_GAP}\d{{3,4}}{_GAP}\d{{4}}"
    rf"|\(?01[016789]{_GAP}\d{{3,4}}{_GAP}\d{{4}}"
    rf"|\(?0{_AREA}{_GAP}\d{{3,4}}{_GAP}\d{{4}}"
    rf"|1[568]\d\d[\-‐-―]\d{{4}}"
    rf"){_END}"
)
_EMAIL: Final = re.compile(
    r"(?<![\w.+\-])[A-Za-z0-9][\w.+\-]{0,63}\s?@\s?"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,62})\.){1,4}[A-Za-z]{2,24}(?![A-Za-z0-9])",
    re.ASCII,
)
_ACCOUNT: Final = re.compile(
    rf"{_START}\d{{2,6}}[\-‐-―]\d{{2,6}}[\-‐-―]\d{{2,7}}(?:[\-‐-―]\d{{1,3}})?{_END}{_UNIT}"
)
_NAMED_ACCOUNT: Final = re.compile(
    r"(?:계좌|입금|송금|이체|은행|뱅크|농협|신협|수협|우체국|새마을금고)[^\d\n]{0,12}?"
    rf"(?P<number>(?<!\d)\d{{10,14}}){_END}{_UNIT}"
)
_DATE: Final = re.compile(r"^(?:19|20)\d\d\D(?:0?[1-9]|1[0-2])\D(?:0?[1-9]|[12]\d|3[01])$")
_LEAST_ACCOUNT: Final = 10
_MOST_ACCOUNT: Final = 14
_FULL_WIDTH: Final = str.maketrans(
    {chr(0xFF10 + digit): str(digit) for digit in range(10)}
    | {"＠": "@", "．": ".", "－": "-", "＋": "+", "（": "(", "）": ")", "　": " "}
)
_PERHAPS: Final = re.compile(r"\d{4}|[@＠]")
"""Nearly every review lacks both, and is passed over at once."""


@dataclass(frozen=True)
class Found:
    """Personal data in a text: ``text[start:end]``, in code points."""

    kind: PersonalData
    start: int
    end: int


def _digits(text: str) -> str:
    return "".join(character for character in text if character.isdigit())


def _is_card(text: str) -> bool:
    digits = [int(digit) for digit in _digits(text)]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_account(text: str) -> bool:
    count = len(_digits(text))
    return _LEAST_ACCOUNT <= count <= _MOST_ACCOUNT and not _DATE.match(text)


def _always(_text: str) -> bool:
    return True


# The stricter form first: a resident number could also be read as an account.
_FORMS: Final[tuple[tuple[PersonalData, re.Pattern[str], Callable[[str], bool]], ...]] = (
    ("email", _EMAIL, _always),
    ("resident_number", _RESIDENT, _always),
    ("card", _CARD, _is_card),
    ("phone", _PHONE, _always),
    ("account", _ACCOUNT, _is_account),
    ("account", _NAMED_ACCOUNT, _always),
)


def _plain_digits(text: str) -> str:
    """The text with digits and signs of other widths as ASCII, as long as before."""
    if text.isascii():
        return text
    plain = text.translate(_FULL_WIDTH)
    return "".join(
        str(unicodedata.decimal(character))
        if not character.isascii() and character.isdecimal()
        else character
        for character in plain
    )


def find_personal_data(text: str) -> list[Found]:
    """Personal data in a text, in the order it stands; nothing is found twice."""
    if not _PERHAPS.search(text):
        return []
    plain = _plain_digits(text)
    found: list[Found] = []
    for kind, pattern, holds in _FORMS:
        for match in pattern.finditer(plain):
            group = "number" if "number" in pattern.groupindex else 0
            start, end = match.span(group)
            taken = any(start < other.end and other.start < end for other in found)
            if not taken and holds(match.group(group)):
                found.append(Found(kind, start, end))
    return sorted(found, key=lambda each: each.start)


def mask_text(text: str) -> tuple[str, dict[PersonalData, int]]:
    """A text with its personal data masked, as long as before, and the counts by kind."""
    found = find_personal_data(text)
    if not found:
        return text, {}
    characters = list(text)
    for each in found:
        for position in range(each.start, each.end):
            if characters[position].isalnum():
                characters[position] = MASK
    return "".join(characters), dict(Counter(each.kind for each in found))


def mask_review(row: LabelledReview) -> tuple[LabelledReview, dict[PersonalData, int]]:
    """A labelled review with its text masked, and its evidence read again from the masked text."""
    text, counts = mask_text(row.review.text)
    if not counts:
        return row, {}
    evidence = tuple(
        Evidence(**(each.model_dump() | {"text": text[each.start : each.end]}))
        for each in row.label.evidence
    )
    label = Label(**(row.label.model_dump() | {"evidence": evidence}))
    return LabelledReview(review=row.review.model_copy(update={"text": text}), label=label), counts


def mask_source(value: Any) -> Any:
    """A source row with the personal data in its strings masked; identifiers are left alone.

    A span may be half a number, which no form recognises; so what stands in the row's text under a
    mask is masked wherever a ``text`` repeats it.
    """
    return _mask_value(value, [text for text in _texts(value) if find_personal_data(text)])


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return []


def _mask_value(value: Any, revealing: list[str], key: str = "") -> Any:
    if isinstance(value, dict):
        return {
            name: item
            if isinstance(item, str) and (name == "id" or name.endswith("_id"))
            else _mask_value(item, revealing, name)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_mask_value(item, revealing, key) for item in value]
    if not isinstance(value, str):
        return value
    if key == "text":
        for whole in revealing:
            start = whole.find(value)
            if start >= 0:
                return mask_text(whole)[0][start : start + len(value)]
    return mask_text(value)[0]
