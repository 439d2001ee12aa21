"""How a report speaks of metrics and figures, in English and Korean."""

from typing import Final

from serving.experiments.metric_names import SHARES
from serving.experiments.report import Language, MetricRow, Said

_METRICS: Final[dict[str, Said]] = {
    "sentiment_accuracy": Said(en="share of right sentiments", ko="감성 정답률"),
    "reward": Said(en="mean reward", ko="평균 보상"),
    "latency_ms": Said(en="latency", ko="응답 시간"),
    "error_rate": Said(en="error rate", ko="오류율"),
    "degraded_rate": Said(en="rate of degraded answers", ko="품질 저하 응답률"),
    "cost": Said(en="cost of an answer", ko="응답당 비용"),
    "preference": Said(en="judge's preference", ko="평가자 선호도"),
}
KINDS: Final[dict[str, Said]] = {
    "shadow": Said(en="shadow", ko="섀도"),
    "canary": Said(en="canary", ko="카나리"),
    "ab": Said(en="A/B", ko="A/B"),
}


def metric_word(name: str, quantile: float | None = None) -> Said:
    """A metric's name for people; one that is fed back is called as its owner calls it."""
    said = _METRICS.get(name, Said(en=f"metric {name}", ko=f"지표 {name}"))
    if quantile is None:
        return said
    percent = f"{quantile * 100:g}"
    return Said(en=f"p{percent} {said.en}", ko=f"{said.ko} p{percent}")


def figure(name: str, value: float | None, *, signed: bool = False) -> str:
    """A metric's value in its own unit; shares in percent, their differences in points."""
    if value is None:
        return "–"
    sign = "+" if signed else ""
    if name in SHARES:
        return f"{value * 100:{sign}.2f}" + (" %p" if signed else "%")
    if name == "latency_ms":
        return f"{value:{sign}.1f} ms"
    return f"{value:{sign}.4g}"


def interval(row: MetricRow) -> str:
    """From … to …; a dash where it says nothing."""
    if row.low is None and row.high is None:
        return "–"
    low, high = (figure(row.metric, end, signed=True) for end in (row.low, row.high))
    # The unit once is enough.
    return f"{low.removesuffix(' %p').removesuffix(' ms')} … {high}"


def in_language(said: Said, lang: Language) -> str:
    """A sentence in one of the two."""
    return said.ko if lang == "ko" else said.en
