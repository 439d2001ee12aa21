"""The schema of synthetic_phrases.yaml, and which endings each kind of word takes.

What comes in is the YAML file beside this module; what goes out is a ``Sheet``. Unknown keys fail.
"""

from importlib.resources import files
from typing import Final, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field

from data.contract import Aspect, Emotion, Intensity, Polarity
from data.sources.korean import Ending

Register = Literal["yo", "formal", "plain", "eum"]
REGISTERS: Final[tuple[Register, ...]] = get_args(Register)
Kind = Literal["a", "v", "e", "w", "n", "f"]
Bucket = Literal["mild", "strong", "denied", "sarcasm", "fact", "question"]
SIGN: Final[dict[Polarity, int]] = {"negative": -1, "neutral": 0, "positive": 1}

_ANY: Final[dict[Register, tuple[Ending, ...]]] = {
    "yo": (
        "어요",
        "어요",
        "어요",
        "네요",
        "네요",
        "었어요",
        "었어요",
        "더라고요",
        "더라구요",
        "었네요",
    ),
    "formal": ("습니다", "습니다", "었습니다", "었습니다"),
    "plain": ("다", "다", "었다", "네", "더라", "어", "었어", "었음"),
    "eum": ("음", "음", "었음", "었음", "네"),
}
_PAST: Final[dict[Register, tuple[Ending, ...]]] = {
    "yo": ("었어요", "었어요", "었네요"),
    "formal": ("었습니다",),
    "plain": ("었다", "었네", "었어"),
    "eum": ("었음",),
}
_PRESENT: Final[dict[Register, tuple[Ending, ...]]] = {
    "yo": ("어요",),
    "formal": ("습니다",),
    "plain": ("다", "어"),
    "eum": ("음",),
}
FINALS: Final = {"a": _ANY, "v": _ANY, "e": _PAST, "w": _PRESENT, "n": _ANY}
ANDS: Final[dict[str, tuple[Ending, ...]]] = {
    "a": ("고", "고", "었고"),
    "v": ("고", "고", "었고"),
    "e": ("었고",),
    "w": ("고",),
    "n": ("고",),
}
BUTS: Final[dict[str, tuple[Ending, ...]]] = {
    "a": ("는데", "는데", "지만", "었는데", "었지만", "긴 한데"),
    "v": ("는데", "는데", "지만", "었는데", "었지만", "긴 한데"),
    "e": ("었는데", "었지만"),
    "w": ("는데", "지만"),
    "n": ("는데", "지만", "긴 한데"),
}


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Group(_Strict):
    """Words that share how they are used and what they say."""

    kind: Kind = "f"
    words: tuple[str, ...] = Field(min_length=1)
    aspect: Aspect | None = None
    polarity: Polarity | None = None
    emotion: Emotion | None = None
    sign: Polarity = "neutral"
    intensity: Intensity = 0
    points: float = Field(default=0.0, ge=0.0, le=3.0)
    of: tuple[str, ...] = ()
    degree: bool = False
    denied: float = 0.0
    delivery: Literal["either", "only", "never"] = "either"
    emotions: tuple[Emotion, ...] = ()
    negation: bool = False
    slang: bool = False
    sarcasm: bool = False


class Sheet(_Strict):
    """The whole file of word material."""

    slots: dict[str, tuple[str, ...]]
    subjects: dict[str, tuple[str, ...]]
    unions: dict[str, tuple[str, ...]]
    adverbs: dict[str, tuple[str, ...]]
    groups: tuple[Group, ...]
    overall: tuple[Group, ...]
    emotions: tuple[Group, ...]
    shorts: tuple[Group, ...]
    openers: dict[str, tuple[str, ...]]
    connectors: dict[str, tuple[str, ...]]
    marks: dict[str, tuple[str, ...]]


def read_sheet() -> Sheet:
    """Read and check the word material.

    Raises:
        pydantic.ValidationError: a key is unknown, or a value is of the wrong kind.
    """
    text = files("data.sources").joinpath("synthetic_phrases.yaml").read_text(encoding="utf-8")
    # libyaml reads it ten times as fast, and is in every wheel of PyYAML
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return Sheet.model_validate(yaml.load(text, Loader=loader))  # noqa: S506  # a safe loader
