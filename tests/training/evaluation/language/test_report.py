"""The report is one file that links nowhere and runs nothing."""

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from serving.engines.chat import ChatRequest
from training.evaluation.language.evaluation import evaluate_language_models

Town = tuple[Path, Path]
Say = Callable[[ChatRequest], str]


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.linked: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.linked += [value or "" for name, value in attrs if name in {"src", "href"}]


def test_the_report_is_one_file_and_runs_nothing(
    town: Town, engine: Any, says_gold: Say, tmp_path: Path
) -> None:
    def say(request: ChatRequest) -> str:
        if "총평" in request.messages[-1]["content"]:
            return '{"overall":"<script>alert(1)</script> 맛있다"}'
        return says_gold(request)

    split, targets = town
    evaluate_language_models(
        targets, {"m": engine("m", say)}, tmp_path / "out", split=split, repeats=1, resamples=100
    )
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert "script" not in page.tags
    assert "&lt;script&gt;alert(1)" in text
    assert {"svg", "table"} <= set(page.tags)
    assert all(link.startswith("#") for link in page.linked)
    assert "category assignment" in text.lower()
