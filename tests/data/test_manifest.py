import errno
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.contract import Label, LabelledReview, Review
from data.errors import ArtifactError, ContractError
from data.manifest import (
    MANIFEST_NAME,
    canonical_digest,
    read_labelled_reviews,
    read_manifest,
    start_artifact,
    write_json,
    write_labelled_reviews,
    write_manifest,
    write_text_atomically,
)


def fill(folder: Path) -> Path:
    (folder / "inner").mkdir(parents=True)
    (folder / "a.txt").write_text("국물", encoding="utf-8")
    (folder / "inner" / "b.bin").write_bytes(bytes(range(256)))
    return folder


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = fill(tmp_path / "artifact")
    write_manifest(folder, "snapshot", {"rows": 3})
    return folder


def test_a_sealed_artifact_is_read_back(sealed):
    manifest = read_manifest(sealed, "snapshot")
    assert set(manifest.files) == {"a.txt", "inner/b.bin"}
    assert manifest.files["inner/b.bin"].bytes == 256
    assert manifest.facts == {"rows": 3}


def test_a_folder_without_manifest_was_cut_short(tmp_path):
    with pytest.raises(ArtifactError, match="did not finish"):
        read_manifest(fill(tmp_path / "artifact"))
    with pytest.raises(ArtifactError, match="did not finish"):
        read_manifest(tmp_path / "nowhere")


def test_an_altered_file_is_refused_also_at_the_same_size(sealed):
    data = bytearray((sealed / "inner" / "b.bin").read_bytes())
    data[7] ^= 1
    (sealed / "inner" / "b.bin").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"b\.bin.*altered"):
        read_manifest(sealed)


def test_a_file_cut_short_is_refused(sealed):
    os.truncate(sealed / "inner" / "b.bin", 100)
    with pytest.raises(ArtifactError, match="cut short"):
        read_manifest(sealed)


def test_a_missing_file_is_refused(sealed):
    (sealed / "a.txt").unlink()
    with pytest.raises(ArtifactError, match=r"a\.txt.*missing"):
        read_manifest(sealed)


def test_another_kind_is_refused(sealed):
    with pytest.raises(ArtifactError, match="'snapshot', expected 'split'"):
        read_manifest(sealed, "split")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "snapshot"}'])
def test_what_is_no_manifest_is_refused(sealed, text):
    (sealed / MANIFEST_NAME).write_text(text)
    with pytest.raises(ArtifactError, match="is not a manifest"):
        read_manifest(sealed)


def test_an_artifact_of_another_major_contract_is_refused(sealed):
    path = sealed / MANIFEST_NAME
    path.write_text(
        path.read_text().replace('"contract_version": "1.0"', '"contract_version": "9.0"')
    )
    with pytest.raises(ContractError, match=r"'9\.0'"):
        read_manifest(sealed)


def test_the_digest_does_not_depend_on_place_or_time(sealed, tmp_path):
    elsewhere = fill(tmp_path / "another" / "place")
    for path in elsewhere.rglob("*"):
        os.utime(path, (1, 1))
    moved = write_manifest(elsewhere, "snapshot", {"rows": 3})
    assert moved.digest == read_manifest(sealed).digest
    shutil.copytree(elsewhere, tmp_path / "copy")
    assert read_manifest(tmp_path / "copy") == moved


@pytest.mark.parametrize("change", ["kind", "facts", "content", "name"])
def test_the_digest_depends_on_all_that_is_said_and_held(tmp_path, change):
    folder = fill(tmp_path / "artifact")
    before = write_manifest(folder, "snapshot", {"rows": 3}).digest
    if change == "content":
        (folder / "a.txt").write_text("국믈", encoding="utf-8")
    if change == "name":
        (folder / "a.txt").rename(folder / "c.txt")
    after = write_manifest(
        folder,
        "split" if change == "kind" else "snapshot",
        {"rows": 4 if change == "facts" else 3},
    )
    assert after.digest != before


def test_equal_values_have_equal_digests():
    assert canonical_digest({"a": 1, "b": [2, 3]}) == canonical_digest({"b": [2, 3], "a": 1})
    assert canonical_digest({"b": [2, 3]}) != canonical_digest({"b": [3, 2]})


def on_a_full_disk(path: Path) -> None:
    """Make writing `path` fail as on a full disk: its temporary file is the device that is full."""
    path.with_name(f".{path.name}.{os.getpid()}.tmp").symlink_to("/dev/full")


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_full_disk_leaves_the_old_file_whole_and_nothing_else(tmp_path, size):
    path = tmp_path / "reviews.jsonl"
    write_text_atomically(path, "old")
    on_a_full_disk(path)
    with pytest.raises(ArtifactError, match="free space") as refused:
        write_text_atomically(path, "새" * size)
    assert refused.value.__cause__.errno == errno.ENOSPC  # type: ignore[union-attr]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_sealing_on_a_full_disk_leaves_no_manifest(tmp_path):
    folder = fill(tmp_path / "artifact")
    write_json(folder / "facts.json", {"한": 1})
    on_a_full_disk(folder / MANIFEST_NAME)
    with pytest.raises(ArtifactError, match="free space"):
        write_manifest(folder, "snapshot", {})
    with pytest.raises(ArtifactError, match="did not finish"):
        read_manifest(folder)


def test_writing_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="cannot write"):
        write_text_atomically(tmp_path / "file" / "x.json", "{}")
    with pytest.raises(ArtifactError, match="choose another folder"):
        start_artifact(tmp_path / "file")


def test_starting_over_a_cut_run_clears_its_manifest_and_leftovers(sealed):
    (sealed / ".a.txt.123.tmp").write_text("half")
    start_artifact(sealed)
    with pytest.raises(ArtifactError, match="did not finish"):
        read_manifest(sealed)
    assert set(write_manifest(sealed, "snapshot", {}).files) == {"a.txt", "inner/b.bin"}


def test_json_is_for_people(tmp_path):
    write_json(tmp_path / "x.json", {"b": "맛", "a": 1})
    assert (tmp_path / "x.json").read_text("utf-8") == '{\n  "a": 1,\n  "b": "맛"\n}\n'


pieces = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from('맛😋👍🏽\n\r\t\u2028\u0085\x00"\\ㅋ'),
    ),
    min_size=1,
    max_size=40,
)
texts = st.tuples(pieces, st.sampled_from([1, 50, 999, 10_000])).map(
    lambda drawn: (drawn[0] * drawn[1])[: max(len(drawn[0]), drawn[1])]
)
labels = st.sampled_from(
    [
        Label(sentiment="neutral"),
        Label(intensity=-2, emotions=()),
        Label(emotions=("anger",), aspects={"food": "mixed"}, phenomena=("emoji",)),
    ]
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(st.tuples(texts, labels), max_size=4))
def test_labelled_reviews_come_back_as_they_were(rows, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "reviews.jsonl"
    written = [
        LabelledReview(review=Review(review_id=f"r{number}", text=text), label=label)
        for number, (text, label) in enumerate(rows)
    ]
    assert write_labelled_reviews(path, written) == len(rows)
    assert list(read_labelled_reviews(path)) == written
    assert path.read_bytes().count(b"\n") == len(rows)


@pytest.mark.parametrize("line", ["", "{", "[]", '{"review": {"review_id": "r1", "text": "굿"}}'])
def test_a_line_that_is_no_labelled_review_is_named(tmp_path, line):
    path = tmp_path / "reviews.jsonl"
    row = LabelledReview(review=Review(review_id="r0", text="굿"), label=Label(intensity=1))
    path.write_text(f"{row.model_dump_json()}\n{line}\n", encoding="utf-8")
    rows = read_labelled_reviews(path)
    assert next(rows) == row
    with pytest.raises(ArtifactError, match="line 2"):
        next(rows)
