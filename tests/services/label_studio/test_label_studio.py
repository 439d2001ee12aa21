"""A live Label Studio: the contract's labelling config in it, labels into it and out again."""

import json
from pathlib import Path
from typing import Any

import pytest
from label_studio_sdk import LabelStudio
from playwright.sync_api import Browser, Page

from data.errors import SourceError
from data.labelling import from_result, labelling_config, to_result
from data.manifest import Manifest
from data.snapshot import ingest_labels
from data.sources.label_studio import read_export
from data.sources.label_studio_server import PAGE_SIZE
from data.sources.rows import SourceRow

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]
GOLD = Path("data/gold/reviews.json")
TASKS = PAGE_SIZE + 20
UNLABELLED = 2
TWICE = 5


@pytest.fixture(scope="module")
def client(label_studio) -> Any:
    return LabelStudio(base_url=label_studio.url, api_key=label_studio.token)


def _emoji_before_evidence(row: SourceRow) -> bool:
    ends = [evidence.end for evidence in row.annotations[0].label.evidence]
    return any(ord(letter) > 0xFFFF for letter in row.review.text[: max(ends, default=0)])


@pytest.fixture(scope="module")
def gold() -> list[SourceRow]:
    rows = [row for row in read_export(GOLD) if isinstance(row, SourceRow)]
    # Evidence behind an emoji comes first: there, Label Studio and Python may count differently.
    rows.sort(key=_emoji_before_evidence, reverse=True)
    return rows[:TASKS]


@pytest.fixture(scope="module")
def project(client: Any, gold: list[SourceRow]) -> int:
    """Gold reviews, labelled through the API by two people; the last ones are left unlabelled."""
    project_id: int = client.projects.create(
        title="음식점 리뷰", label_config=labelling_config()
    ).id
    client.projects.import_tasks(
        id=project_id, request=[{"data": row.source["data"]} for row in gold]
    )
    listed = {
        t.data["review_id"]: t.id for t in client.tasks.list(project=project_id, page_size=500)
    }
    first = client.users.whoami().id
    second = client.users.create(email="second@example.com", username="second").id
    for number, row in enumerate(gold[:-UNLABELLED]):
        result = to_result(row.annotations[0].label, row.review.text)
        for person in (first, second) if number < TWICE else (first,):
            client.annotations.create(
                id=listed[row.review.review_id], result=result, completed_by=person
            )
    return project_id


def ingest(source: str, out: Path, **options: Any) -> Manifest:
    kind = "label_studio_server" if source.startswith("http") else "label_studio_file"
    return ingest_labels(source, kind, None, "1", out, **options)


@pytest.fixture(scope="module")
def exported(client: Any, project: int, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The snapshot of the project's export file."""
    folder = tmp_path_factory.mktemp("export")
    tasks = client.projects.exports.as_json(project)
    (folder / "export.json").write_text(json.dumps(tasks, ensure_ascii=False), encoding="utf-8")
    return ingest(str(folder / "export.json"), folder / "snapshot")


def test_labels_survive_the_way_through_the_server(
    exported: Manifest, gold: list[SourceRow], tmp_path: Path, label_studio, project: int
) -> None:
    url = f"{label_studio.url}/projects/{project}"
    ingest(url, tmp_path, token=label_studio.token)
    lines = (tmp_path / "reviews.jsonl").read_text(encoding="utf-8").splitlines()
    back = {row["review"]["review_id"]: row["label"] for row in map(json.loads, lines)}
    assert back == {
        row.review.review_id: row.annotations[0].label.model_dump(mode="json")
        for row in gold[:-UNLABELLED]
    }


def test_the_server_and_its_export_give_the_same_snapshot(
    exported: Manifest, tmp_path: Path, label_studio, project: int
) -> None:
    url = f"{label_studio.url}/projects/{project}"
    live = ingest(url, tmp_path, token=label_studio.token)
    assert live.facts["snapshot_id"] == exported.facts["snapshot_id"]
    assert live.facts["rows_in"] == TASKS
    assert live.facts["quarantined"] == UNLABELLED
    assert live.facts["reasons"] == exported.facts["reasons"] == {"no_annotation": UNLABELLED}
    assert live.facts["annotators"] == 2
    assert live.facts["labelled_twice"] == TWICE


def test_the_token_may_come_from_the_environment(
    exported: Manifest, tmp_path: Path, label_studio, project: int, monkeypatch
) -> None:
    monkeypatch.setenv("MATJIP_LABEL_STUDIO_TOKEN", label_studio.token)
    live = ingest(f"{label_studio.url}/projects/{project}/data?tab=1", tmp_path)
    assert live.facts["snapshot_id"] == exported.facts["snapshot_id"]


def test_a_wrong_token_and_an_unknown_project_are_named(
    label_studio, project: int, tmp_path: Path
) -> None:
    wrong = "f" * 40
    with pytest.raises(SourceError, match="token was refused") as refused:
        ingest(f"{label_studio.url}/projects/{project}", tmp_path / "a", token=wrong)
    assert wrong not in str(refused.value)
    with pytest.raises(SourceError, match="no project 987654"):
        ingest(f"{label_studio.url}/projects/987654", tmp_path / "b", token=label_studio.token)
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_a_project_without_tasks_is_named(label_studio, client: Any, tmp_path: Path) -> None:
    empty = client.projects.create(title="empty", label_config=labelling_config()).id
    with pytest.raises(SourceError, match="holds no tasks"):
        ingest(f"{label_studio.url}/projects/{empty}", tmp_path, token=label_studio.token)


def test_a_server_that_is_gone_is_named_and_one_that_came_back_is_read(
    exported: Manifest, label_studio, project: int, tmp_path: Path
) -> None:
    url = f"{label_studio.url}/projects/{project}"
    label_studio.stop()
    try:
        with pytest.raises(SourceError, match="does not answer after 4 attempts"):
            ingest(url, tmp_path / "snapshot", token=label_studio.token)
        assert not (tmp_path / "snapshot").exists()
    finally:
        label_studio.start()
    live = ingest(url, tmp_path / "snapshot", token=label_studio.token)
    assert live.facts["snapshot_id"] == exported.facts["snapshot_id"]


@pytest.fixture
def page(browser: Browser, label_studio) -> Any:
    """A page, signed in."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, locale="ko-KR")
    page = context.new_page()
    page.goto(f"{label_studio.url}/user/login")
    page.fill("input[name=email]", label_studio.email)
    page.fill("input[name=password]", label_studio.password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "/user/login" not in url)
    yield page
    context.close()


def picture(page: Page, name: str) -> None:
    folder = Path("var/screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / name, full_page=True)


def choose(page: Page, title: str, *values: str) -> None:
    group = page.locator("h3", has_text=title).locator("xpath=following-sibling::div[1]")
    for value in values:
        group.locator(f"input[name='{value}']").check()


def mark(page: Page, label: str, words: str) -> None:
    """Choose a label, then draw the mouse over the words, as an annotator does."""
    page.locator(".lsf-label", has_text=label).click()
    box = page.evaluate(
        """words => {
            const line = document.querySelector(".lsf-richtext__container");
            const walker = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
            while (!walker.nextNode().data.includes(words)) {}
            const node = walker.currentNode, range = document.createRange();
            const at = node.data.indexOf(words);
            range.setStart(node, at);
            range.setEnd(node, at + words.length);
            const box = range.getBoundingClientRect();
            return {left: box.left, right: box.right, middle: (box.top + box.bottom) / 2};
        }""",
        words,
    )
    page.mouse.move(box["left"] + 1, box["middle"])
    page.mouse.down()
    page.mouse.move(box["right"] - 1, box["middle"], steps=8)
    page.mouse.up()


def test_what_a_person_labels_on_the_page_is_a_label_of_the_contract(
    page: Page, label_studio, client: Any
) -> None:
    text = "와 🥹 국물이 미쳤다 ㅋㅋ 근데 사장님 불친절 😡 그래도 또 갈 듯"
    project_id = client.projects.create(title="한 편", label_config=labelling_config()).id
    client.projects.import_tasks(
        id=project_id, request=[{"data": {"review_id": "p-1", "text": text}}]
    )
    page.goto(f"{label_studio.url}/projects/{project_id}/data")
    page.get_by_text("와 🥹 국물이").first.click()
    page.locator(".lsf-richtext__line").wait_for()
    mark(page, "음식 긍정", "국물이 미쳤다")
    page.keyboard.press("Escape")
    mark(page, "서비스 부정", "불친절")
    page.keyboard.press("Escape")
    choose(page, "감성", "긍정")
    choose(page, "강도", "약간 긍정")
    choose(page, "감정", "기쁨", "분노")
    choose(page, "측면: 음식", "긍정")
    choose(page, "측면: 서비스", "부정")
    picture(page, "label-studio-labelled.png")
    with page.expect_response(lambda answer: "/annotations" in answer.url and answer.ok):
        page.get_by_role("button", name="Submit").click()
    [task] = client.tasks.list(project=project_id)
    label = from_result(client.tasks.get(id=task.id).annotations[0]["result"], text)
    assert (label.sentiment, label.intensity) == ("positive", 1)
    assert set(label.emotions) == {"joy", "anger"}
    assert dict(label.aspects) == {"food": "positive", "service": "negative"}
    assert {(e.aspect, e.polarity, e.text) for e in label.evidence} == {
        ("food", "positive", "국물이 미쳤다"),
        ("service", "negative", "불친절"),
    }
    for evidence in label.evidence:
        assert text[evidence.start : evidence.end] == evidence.text


def test_an_imported_label_is_shown_where_it_stands(
    page: Page, label_studio, project: int, gold: list[SourceRow]
) -> None:
    # The first task of the list has a letter beyond UTF-16's first plane and evidence.
    row = gold[0]
    page.goto(f"{label_studio.url}/projects/{project}/data")
    page.get_by_text(row.review.text[:12]).first.click()
    page.locator(".htx-highlight").first.wait_for()
    shown = page.locator(".htx-highlight").all_inner_texts()
    picture(page, "label-studio-imported.png")
    assert {text.strip() for text in shown} == {e.text for e in row.annotations[0].label.evidence}
