"""The page of experiments in a browser: what is shown, in which language, and what its buttons do.

Screenshots lie under MATJIP_TEST_SCREENSHOTS, where that names a folder.
"""

import os
import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from serving.experiments.catalogue import Catalogue
from serving.experiments.store import ExperimentStore
from serving.gateway.app import create_app
from serving.gateway.reloading import DeploymentFiles
from serving.gateway.settings import ServingSettings

CHROMIUM = Path("/usr/bin/chromium")
TOKEN = "open-the-kitchen-door"
NARROW = {"width": 390, "height": 844}
WIDE = {"width": 1_280, "height": 900}
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def made() -> Any:
    """What tests/fake_experiments.py holds."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "fake_experiments.py")))


@pytest.fixture(scope="module", autouse=True)
def no_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever registry this machine has is left alone."""
    with pytest.MonkeyPatch.context() as patch:
        missing = tmp_path_factory.mktemp("registry") / "none.db"
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{missing}")
        yield


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('web') / 'store.db'}"


@pytest.fixture(scope="module")
def catalogue(url: str, made: Any) -> Iterator[Catalogue]:
    """Three experiments; tests that change one begin their own."""
    opened = Catalogue(url, now_us=made.Clock())
    named = made.specification
    made.begin(opened, named("sentiment-int8"), ("start", "카나리"), ("advance", "지켜졌다"))
    made.begin(opened, named("aspect-prompt", hypothesis="예시 둘이면 측면을 더 찾는다"))
    made.begin(
        opened,
        named("written-to-break", hypothesis=f"{made.MARKUP} {made.COMMAND}", owner=made.MARKUP),
        ("start", made.MARKUP),
        ("pause", made.COMMAND),
    )
    store = ExperimentStore(url)
    made.answer(store, "sentiment-int8", 2, 1_200, right={"float": 0.86, "int8": 0.88})
    store.close()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def root(url: str, fakes: Any, catalogue: Catalogue) -> Iterator[str]:
    """A gateway of that store, on loopback."""
    app = create_app(
        ServingSettings(store_url=url, admin_token=TOKEN),
        language=fakes.language_deployment({"kind": "in_process", "folder": "/models/base"}),
        load=lambda _arm, _settings: fakes.FakeEngine(),
    )
    with fakes.serve(app) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, which reaches this machine only.

    Of one module, because Playwright keeps an event loop running for as long as it is open.
    """
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}; apt-get install chromium fonts-noto-cjk")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-background-networking",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
        )
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Browser, root: str, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens the page in a browser of its own; whatever its console complains of fails the test."""
    contexts: list[Any] = []
    complaints: list[str] = []

    def heard(said: ConsoleMessage) -> None:
        # A refusal that the page expects stands in the console too.
        expected = "server responded with a status of" in said.text
        if said.type in {"error", "warning"} and not expected:
            complaints.append(said.text)

    def open_page(path: str = "", **wanted: Any) -> Page:
        context = browser.new_context(**({"locale": "en-US", "viewport": WIDE} | wanted))
        context.set_default_timeout(20_000)
        contexts.append(context)
        page: Page = context.new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{root}/experiments{path}")
        return page

    yield open_page
    folder = os.environ.get("MATJIP_TEST_SCREENSHOTS")
    for number, context in enumerate(contexts):
        if folder and context.pages:
            name = re.sub(r"\W+", "-", f"{request.node.name}-{number}") + ".png"
            context.pages[0].screenshot(path=Path(folder) / name, full_page=True)
        context.close()
    assert complaints == []


def test_the_list_shows_every_experiment_and_where_it_stands(visit: Open) -> None:
    page = visit()
    expect(page.get_by_role("heading", level=1)).to_have_text("Experiments")
    card = page.get_by_role("listitem").filter(has_text="sentiment-int8")
    expect(card).to_contain_text("Running")
    expect(card).to_contain_text("int8")
    expect(card).to_contain_text("50%")
    expect(page.get_by_role("listitem").filter(has_text="aspect-prompt")).to_contain_text("Draft")
    card.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("sentiment-int8")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    page.get_by_role("link", name="All experiments").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Experiments")


def test_one_experiment_shows_its_arms_history_and_routes(visit: Open) -> None:
    page = visit("#/sentiment-int8")
    arms = page.get_by_role("region", name="Live arms")
    expect(arms.get_by_role("row").filter(has_text="float")).to_contain_text("matjip-sentiment v6")
    expect(arms.get_by_role("row").filter(has_text="int8")).to_contain_text("50%")
    expect(page.get_by_text("지켜졌다")).to_be_visible()
    expect(page.get_by_text("No route was ever set")).to_be_visible()
    for name in ("Stop", "Promote", "Roll back", "Abandon"):
        expect(page.get_by_role("button", name=name)).to_be_enabled()
    expect(page.get_by_role("button", name="Resume")).to_have_count(0)
    assert page.locator("html").get_attribute("lang") == "en"


def test_what_it_has_shown_is_drawn_and_told(visit: Open) -> None:
    page = visit("#/sentiment-int8")
    drawing = page.get_by_role("img", name="Confidence sequence: Share of right sentiments")
    expect(drawing).to_be_visible()
    drawing.hover()
    page.get_by_text("As a table").click()
    numbers = page.get_by_role("region", name="Confidence sequence: Share of right sentiments")
    assert numbers.get_by_role("row").count() > 5
    metrics = page.get_by_role("region", name="Metrics")
    expect(metrics.get_by_role("row").filter(has_text="Error rate")).to_contain_text("guardrail")
    expect(page.get_by_role("heading", name="Sample ratio")).to_be_visible()
    expect(page.get_by_text("Phase 2")).to_be_visible()
    with page.expect_navigation():
        page.get_by_role("link", name="Full report").click()
    expect(page.locator("h1")).to_contain_text("sentiment-int8")


def test_a_draft_has_no_arms_at_work_yet(visit: Open) -> None:
    page = visit("#/aspect-prompt")
    expect(page.get_by_text("Not begun")).to_be_visible()
    expect(page.get_by_text("A report begins with the first phase.")).to_be_visible()
    expect(page.get_by_text("Nothing yet.")).to_be_visible()
    expect(page.get_by_text("This gateway opens no phases")).to_be_visible()
    expect(page.get_by_role("button", name="Start")).to_have_count(0)
    expect(page.get_by_role("button", name="Abandon")).to_be_visible()
    expect(page.get_by_role("button", name="Promote")).to_have_count(0)


def test_counts_follow_by_themselves(
    visit: Open, url: str, catalogue: Catalogue, made: Any
) -> None:
    made.begin(catalogue, made.specification("grows"), ("start", "카나리"))
    page = visit("#/grows")
    row = page.get_by_role("region", name="Live arms").get_by_role("row").filter(has_text="int8")
    expect(row).to_contain_text("matjip-sentiment v7")
    store = ExperimentStore(url)
    made.answer(store, "grows", 1, 300, right={"int8": 0.9})
    store.close()
    expect(row).to_contain_text("300")


def test_text_that_was_written_to_break_the_page_is_text(visit: Open, made: Any) -> None:
    for path in ("", "#/written-to-break"):
        page = visit(path)
        expect(page.get_by_text(made.COMMAND, exact=False).first).to_be_visible()
        assert made.MARKUP in page.locator("main").inner_text()
        assert page.evaluate("document.body.dataset.broken") is None
        assert page.locator("main img, main script").count() == 0


def test_markup_that_a_mistake_lets_in_is_stopped(browser: Browser, root: str) -> None:
    headers = httpx.get(f"{root}/experiments").headers
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    page = browser.new_page()
    page.goto(f"{root}/experiments")
    refused = """() => { try { document.body.innerHTML = '<b>x</b>'; return false }
                 catch { return true } }"""
    assert page.evaluate(refused)
    page.close()


def fill(page: Page, token: str) -> None:
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Why?").fill("오답 신고가 늘었다")
    dialog.get_by_label("Who says so?").fill("당번")
    dialog.get_by_label("Administrator's token").fill(token)


def test_a_roll_back_needs_the_token(
    visit: Open, catalogue: Catalogue, made: Any, root: str
) -> None:
    made.begin(catalogue, made.specification("roll-me"), ("start", "카나리"))
    page = visit("#/roll-me")
    page.get_by_role("button", name="Roll back").click()
    dialog = page.get_by_role("dialog", name="Roll roll-me back?")
    expect(dialog).to_contain_text("The control, float, answers everybody")
    confirm = dialog.get_by_role("button", name="Roll back")
    confirm.click()
    expect(dialog).to_be_visible()  # a reason is missing
    fill(page, "a-wrong-token-of-length")
    confirm.click()
    expect(dialog.get_by_role("alert")).to_contain_text("The token is not right.")
    assert catalogue.get("roll-me").lifecycle.state == "running"

    fill(page, TOKEN)
    confirm.click()
    expect(dialog).to_have_count(0)
    expect(page.locator("main").get_by_text("Rolled back", exact=True)).to_be_visible()
    expect(page.get_by_role("status").first).to_contain_text("roll-me: rolled back.")
    expect(page.get_by_text("Everybody is answered by float.")).to_be_visible()
    expect(page.get_by_role("region", name="Routes")).to_contain_text("오답 신고가 늘었다")
    expect(page.get_by_text("It has ended")).to_be_visible()
    routes = httpx.get(f"{root}/v1/routes?experiment=roll-me").json()["routes"]
    assert [(route["arm"], route["by"]) for route in routes] == [("float", "당번")]


def test_the_token_is_kept_in_the_tab_alone_and_can_be_forgotten(
    visit: Open, catalogue: Catalogue, made: Any
) -> None:
    made.begin(catalogue, made.specification("stop-me"), ("start", "카나리"))
    page = visit("#/stop-me")
    page.get_by_role("button", name="Stop").click()
    fill(page, TOKEN)
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Resume").click()
    kept = page.get_by_role("dialog").get_by_label("Administrator's token")
    expect(kept).to_have_value(TOKEN)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    stored = page.evaluate("[JSON.stringify(localStorage), document.cookie].join()")
    assert TOKEN not in stored
    page.get_by_role("button", name="Forget token").click()
    assert TOKEN not in page.evaluate("JSON.stringify(sessionStorage)")


def test_who_acts_on_what_is_old_is_told(visit: Open, catalogue: Catalogue, made: Any) -> None:
    made.begin(catalogue, made.specification("race-me"), ("start", "카나리"))
    page = visit("#/race-me")
    page.get_by_role("button", name="Roll back").click()
    made.begin(catalogue, made.specification("race-me"), ("pause", "가드레일"))
    fill(page, TOKEN)
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("alert")).to_contain_text("Somebody acted meanwhile.")


def test_a_promotion_names_its_arm_by_keyboard(
    visit: Open, catalogue: Catalogue, made: Any
) -> None:
    agreed = made.specification("crown-me")
    made.begin(catalogue, agreed, ("start", "카나리"), ("advance", "지켜졌다"))
    page = visit("#/crown-me")
    page.get_by_role("button", name="Promote").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Promote an arm of crown-me?")
    expect(dialog.get_by_label("Which arm").get_by_role("option")).to_have_text(["int8"])
    expect(dialog.get_by_label("Why?")).to_be_focused()
    fill(page, TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_text("Everybody is answered by int8.")).to_be_visible()
    expect(page.get_by_role("status").first).to_contain_text("the alias did not follow")
    assert catalogue.get("crown-me").lifecycle.promoted == "int8"


def test_korean_follows_the_browser_and_the_switch_is_kept(visit: Open) -> None:
    page = visit("#/sentiment-int8", locale="ko-KR")
    expect(page.get_by_role("heading", name="답하는 모델")).to_be_visible()
    expect(page.get_by_role("button", name="되돌리기")).to_be_visible()
    assert page.locator("html").get_attribute("lang") == "ko"
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("heading", name="Live arms")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Live arms")).to_be_visible()
    page.get_by_role("button", name="한국어").click()
    expect(page.get_by_role("heading", name="답하는 모델")).to_be_visible()


def test_the_ledger_is_asked_for_when_it_is_opened(visit: Open) -> None:
    page = visit("#/sentiment-int8")
    page.get_by_text("Show how matjip-sentiment's aliases moved").click()
    expect(page.get_by_text("There is no model registry here.")).to_be_visible()


def test_both_languages_say_everything(visit: Open) -> None:
    page = visit()
    words = page.evaluate("import('/experiments/assets/words.js').then((module) => module.WORDS)")
    assert words["en"].keys() == words["ko"].keys()
    for key, text in words["en"].items():
        places = {part.split("}")[0] for part in text.split("{")[1:]}
        assert places == {part.split("}")[0] for part in words["ko"][key].split("{")[1:]}, key


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["", "#/sentiment-int8"])
def test_nothing_is_cut_off_on_a_phone(visit: Open, path: str, scheme: str) -> None:
    page = visit(path, viewport=NARROW, color_scheme=scheme, locale="ko-KR")
    page.get_by_role("heading", level=1).wait_for()
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


def test_a_name_that_is_unknown_is_said_so(visit: Open) -> None:
    page = visit("#/no-such")
    expect(page.get_by_role("alert")).to_contain_text("There is no experiment of that name")
    page.get_by_role("link", name="All experiments").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Experiments")


def test_an_empty_store_says_how_to_begin(browser: Browser, fakes: Any, tmp_path: Path) -> None:
    app = create_app(
        ServingSettings(store_url=f"sqlite:///{tmp_path / 'store.db'}"),
        language=fakes.language_deployment({"kind": "in_process", "folder": "/models/base"}),
        load=lambda _arm, _settings: fakes.FakeEngine(),
    )
    with fakes.serve(app) as address:
        page = browser.new_page(locale="en-US")
        page.goto(f"{address}/experiments")
        expect(page.get_by_role("heading", name="No experiments yet")).to_be_visible()
        page.close()


def test_a_gateway_of_the_live_folder_offers_to_start(
    browser: Browser, fakes: Any, url: str, catalogue: Catalogue, tmp_path: Path
) -> None:
    app = create_app(
        ServingSettings(store_url=url, admin_token=TOKEN, live=tmp_path),
        language=fakes.language_deployment({"kind": "in_process", "folder": "/models/base"}),
        files=DeploymentFiles(language=tmp_path / "language_deployment.json"),
        load=lambda _arm, _settings: fakes.FakeEngine(),
    )
    with fakes.serve(app) as address:
        page = browser.new_page(locale="en-US")
        page.goto(f"{address}/experiments#/aspect-prompt")
        page.get_by_role("button", name="Start").click()
        fill(page, TOKEN)
        page.get_by_role("dialog").get_by_role("button", name="Start").click()
        expect(page.get_by_role("alert")).to_contain_text("There is no model registry here.")
        page.close()
    assert catalogue.get("aspect-prompt").lifecycle.state == "draft"


def test_files_are_served_by_name_and_kept_by_browsers(root: str) -> None:
    first = httpx.get(f"{root}/experiments/assets/page.js")
    assert first.headers["Content-Type"].startswith("text/javascript")
    again = httpx.get(
        f"{root}/experiments/assets/page.js", headers={"If-None-Match": first.headers["ETag"]}
    )
    assert again.status_code == 304
    for strange in ("..%2f..%2fapp.py", "none.js", "__init__.py"):
        assert httpx.get(f"{root}/experiments/assets/{strange}").status_code == 404
