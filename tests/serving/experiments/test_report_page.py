"""The page of a report: its text and drawings, and how it lies in a browser.

Screenshots lie under MATJIP_TEST_SCREENSHOTS, where that names a folder.
"""

import html
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from data.errors import ExperimentError
from serving.experiments.analysis import report_of
from serving.experiments.goals import MetricGoal
from serving.experiments.page_words import WORDS
from serving.experiments.paired import Pair, add_paired
from serving.experiments.report_page import page
from serving.experiments.report_plots import interval_svg, sequence_svg
from serving.experiments.verdict import SequencePoint

PHASES = {
    "hypothesis": "INT8도 똑같이 맞힌다 <script>alert(1)</script>",
    "phases": [
        {"kind": "shadow", "mirrored": 0.5, "min_units": 30},
        {"kind": "ab", "allocation": {"float": 0.5, "int8": 0.5}, "min_units": 100},
    ],
}
VOID = {"meta", "br"}
CHROMIUM = Path("/usr/bin/chromium")
WIDTHS = (1_240, 390)


class Balanced(HTMLParser):
    """Fails where a tag is closed that is not the open one."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def tags(text):
    parser = Balanced()
    parser.feed(text)
    assert not parser.open
    return parser.seen


@pytest.fixture
def reported(trial):
    """Of an A/B after a shadow in which answers differed."""
    it = trial(PHASES)
    it.open()
    shown = []
    for unit in range(60):
        one = it.exposure("float", unit, request_id=f"r{unit}-<&>")
        label = "negative" if unit % 3 == 0 else "positive"
        given = {"request_id": one.request_id, "why": "mirrored"}
        answer = b'{"sentiment":{"label":"%s","probabilities":{"negative":0.4,"positive":0.6}}}'
        given["prediction"] = answer % label.encode()
        shown += [one, it.exposure("int8", unit, **given)]
    it.write(shown)
    it.open("advance")
    it.serve(600, {"float": 0.7, "int8": 0.9}, asks=2)
    return report_of(it.url, it.name, clock=lambda: it.now_us)


def test_the_page_is_whole_in_both_languages_and_runs_no_script(reported):
    for lang, words in (
        ("en", ("Promote: int8", "Confidence sequence", "Guardrails", "Sample ratio", "weekday")),
        ("ko", ("승격: int8", "신뢰 구간의 변화", "안전 지표", "배정 비율", "요일", "긍정")),
    ):
        text = page(reported, lang, traffic="<b>가상 트래픽</b>")
        seen = tags(text)
        assert "script" not in seen
        assert seen.count("svg") > 3
        plain = html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", text)))
        for word in words:
            assert word in plain, word
        assert "alert(1)</script>" in plain
        assert "r57-<&>" in plain
        assert "<b>가상 트래픽</b>" in plain
        assert f'lang="{lang}"' in text
    assert reported.reason in html.unescape(page(reported, "en"))
    assert reported.reason_ko in html.unescape(page(reported, "ko"))


def test_pairs_stand_in_a_section_of_their_own(reported):
    pairs = [Pair(item=f"r{n}", control=1.0 - n % 2, arm=float(n % 2)) for n in range(20)]
    more = add_paired(reported, "int8", pairs, source="preference")
    assert "10 won, 10 lost, 0 ties" in page(more, "en")
    assert "평가자 선호도" in page(more, "ko")
    assert "평가자 선호도" not in page(reported, "ko")


def test_a_report_of_nothing_is_a_page_too(trial):
    it = trial({"phases": [PHASES["phases"][1]]})
    it.open()
    empty = report_of(it.url, it.name, clock=lambda: it.now_us)
    text = page(empty, "ko")
    tags(text)
    assert "무효" in text
    assert 'class="plot"' not in text
    shadow = trial(PHASES | {"name": "shadow"})
    shadow.open()
    text = page(report_of(shadow.url, shadow.name, clock=lambda: shadow.now_us))
    tags(text)
    assert "the control answers everybody" in text


def test_another_language_is_refused(reported):
    with pytest.raises(ExperimentError, match="lang='fr'"):
        page(reported, "fr")


def test_every_word_of_the_page_is_there_in_both_languages():
    assert all(said.en and said.ko for said in WORDS.values())


def test_a_drawing_stays_within_its_frame_and_better_is_to_the_right(reported):
    points = [
        SequencePoint(n=100, estimate=5.0, low=-900.0, high=900.0),
        SequencePoint(n=5_000, estimate=-0.1, low=-0.2, high=0.0),
    ]
    drawn = sequence_svg(
        points, margin=0.1, direction="increase", shown=lambda x: f"{x:.1f}", units="<단위>"
    )
    assert "&lt;단위&gt;" in drawn
    drawings = " ".join(re.findall(r'points="([^"]*)"', drawn))
    ys = [float(place.split(",")[1]) for place in drawings.split()]
    assert min(ys) >= 0.0
    assert max(ys) <= 260.0
    better = reported.primary[0]
    slower = better.model_copy(update={"direction": "decrease"})
    places = [float(re.search(r'cx="([\d.]+)"', interval_svg(row))[1]) for row in (better, slower)]
    assert places[0] > 90.0 > places[1]
    one = [SequencePoint(n=1, estimate=0.0, low=0.0, high=0.0)]
    assert "nan" not in sequence_svg(one, margin=0.0, direction="increase", shown=str, units="")


def test_in_a_browser_the_page_fits_its_window_and_is_dark_where_that_is_asked_for(
    reported, tmp_path
):
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}; apt-get install chromium fonts-noto-cjk")
    pairs = [Pair(item=f"r{n}", control=0.5, arm=0.5 + n % 2 / 2 - n % 3 / 4) for n in range(20)]
    goal = MetricGoal(name="macro_f1", direction="increase")
    shown = add_paired(reported, "int8", pairs, source="replay", goal=goal)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-background-networking"]
        )
        for lang in ("en", "ko"):
            path = tmp_path / f"{lang}.html"
            path.write_text(page(shown, lang), encoding="utf-8")
            for width in WIDTHS:
                for scheme in ("light", "dark"):
                    opened = browser.new_page(
                        viewport={"width": width, "height": 900},
                        color_scheme=scheme,
                    )
                    said = []
                    opened.on("console", lambda message, said=said: said.append(message.text))
                    opened.goto(path.as_uri())
                    assert opened.evaluate("document.documentElement.scrollWidth") <= width
                    paper = opened.evaluate("getComputedStyle(document.body).backgroundColor")
                    light = paper == "rgb(255, 255, 255)"
                    assert light == (scheme == "light")
                    assert opened.locator("svg.plot").count() == 1
                    assert opened.locator(".pair").count() == 20
                    assert said == []
                    if folder := os.environ.get("MATJIP_TEST_SCREENSHOTS"):
                        name = f"report-{lang}-{width}-{scheme}.png"
                        opened.screenshot(path=Path(folder) / name, full_page=True)
                    opened.close()
        browser.close()
