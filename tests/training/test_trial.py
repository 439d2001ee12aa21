import os
import signal
import subprocess
import sys
import time

import pytest

from data.answers import decoding_schema
from data.contract import SENTIMENTS
from data.errors import DataUnfitError
from data.manifest import write_manifest
from data.targets import read_examples, write_examples
from serving.analyzer import load_analyzer
from serving.engines.chat import ChatAnswer
from serving.engines.chat_transformers import TransformersChatEngine
from training.search_space import recipe_text
from training.trial import Job, climb, labels_score, peak_bytes, sentiment_score
from training.trial_process import TimeUpError, TrialFailedError, trial_process


@pytest.fixture(scope="module")
def quick(tiny_recipe):
    return tiny_recipe.model_copy(
        update={"fine_tuning": tiny_recipe.fine_tuning.model_copy(update={"epochs": 1})}
    )


@pytest.fixture
def job(tmp_path, quick, toy_split, tiny_encoder):
    return Job(
        kind="encoder",
        recipe=recipe_text(quick),
        data=toy_split,
        start=tiny_encoder,
        work=tmp_path / "work",
        shares=(1 / 3, 1.0),
        scored_examples=4,
    )


def test_a_rung_trains_scores_and_leaves_its_score_alone(job):
    rung = climb(job, 1 / 3)
    assert 0 < rung.score <= 1
    assert rung.share == 1 / 3
    assert rung.seconds > 0
    assert rung.peak_bytes > 2**27
    assert not list((job.work / "models").iterdir())
    assert len(list((job.work / "scores").iterdir())) == 1


def test_a_rung_that_was_climbed_is_not_climbed_again(job, tmp_path):
    before = climb(job, 1 / 3)
    without = job.model_copy(update={"data": tmp_path / "gone", "start": tmp_path / "gone"})
    assert climb(without, 1 / 3) == before


def test_the_score_is_macro_f1_over_the_validation_part(tiny_model, toy_split, toy_reviews):
    rows = toy_reviews[90:126]
    said = [
        max(answer.sentiment.probabilities, key=answer.sentiment.probabilities.get)
        for answer in load_analyzer(tiny_model).analyze([row.review.text for row in rows])
    ]
    gold = [row.label.sentiment for row in rows]
    each = []
    for name in SENTIMENTS:
        right = sum(g == s == name for g, s in zip(gold, said, strict=True))
        each.append(2 * right / (gold.count(name) + said.count(name)))
    expected = sum(each) / len(each)
    assert sentiment_score(tiny_model, toy_split, threads=1) == pytest.approx(expected)


def test_a_validation_part_without_labels_tells_nothing_apart(
    tmp_path, tiny_model, write_split, toy_reviews
):
    bare = [
        row.model_copy(update={"label": row.label.model_copy(update={"sentiment": None})})
        for row in toy_reviews
    ]
    split = write_split(tmp_path / "split", bare)
    with pytest.raises(DataUnfitError, match="36 reviews and no sentiment"):
        sentiment_score(tiny_model, split, threads=1)


def test_memory_is_this_processs_own():
    held = bytearray(64 * 2**20)
    assert peak_bytes() > len(held)
    code = "from training.trial import peak_bytes; print(peak_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Torch is loaded here and not there; getrusage would count it there too.
    assert int(done.stdout) < peak_bytes() - 64 * 2**20


def test_a_trial_whose_starter_is_gone_ends_at_once(job, tmp_path):
    path = tmp_path / "job.json"
    path.write_text(job.model_dump_json())
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "training.trial", str(path), "1"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stdout == b""
    assert not (job.work / "scores").exists()
    assert time.monotonic() - started < 30


def test_a_trial_that_fails_says_why(job, tmp_path):
    broken = job.model_copy(update={"kind": "language", "recipe": "name: [", "shares": (1.0,)})
    with (
        trial_process(broken, tmp_path / "trial") as running,
        pytest.raises(TrialFailedError, match=r"^language recipe is not YAML"),
    ):
        running.next_rung(time.monotonic() + 60)
    assert "Traceback" in (tmp_path / "trial" / "trial.log").read_text()


def test_a_trial_that_breaks_tells_its_last_words(job, tmp_path):
    broken = job.model_copy(update={"work": tmp_path / ("x" * 300)})
    with (
        trial_process(broken, tmp_path / "trial") as running,
        pytest.raises(TrialFailedError, match=r"^OSError: .*File name too long"),
    ):
        running.next_rung(time.monotonic() + 60)


def test_a_trial_that_is_killed_says_so(job, tmp_path):
    with trial_process(job, tmp_path / "trial") as running:
        os.kill(running.process.pid, signal.SIGKILL)
        with pytest.raises(TrialFailedError, match=r"SIGKILL.*memory runs out"):
            running.next_rung(time.monotonic() + 60)
        running.go_on()  # to a dead process: nothing happens


def test_no_trial_outlives_its_time(job, tmp_path):
    with (
        trial_process(job, tmp_path / "trial") as running,
        pytest.raises(TimeUpError),
    ):
        running.next_rung(time.monotonic())
    assert running.process.returncode == -signal.SIGKILL


def sealed_targets(folder, source, **changes):
    """Targets like others, but for their validation part; nobody could read their test part."""
    folder.mkdir()
    for part in ("train", "validation"):
        examples = read_examples(source / f"{part}.jsonl")[:12]
        altered = changes if part == "validation" else {}
        changed = [example.model_copy(update=altered) for example in examples]
        write_examples(folder / f"{part}.jsonl", changed)
    (folder / "test.jsonl").write_text("no example\n")
    write_manifest(folder, "targets", {"snapshot_id": "toy", "prompts": {}})
    return folder


def test_a_language_model_is_scored_by_what_its_labels_say(
    tmp_path, tiny_base, tiny_adapter, language_targets
):
    targets = sealed_targets(tmp_path / "targets", language_targets)
    score = labels_score(tiny_base, tiny_adapter, targets, most=3, threads=1)
    assert 0 <= score < 1
    assert score == labels_score(tiny_base, tiny_adapter, targets, most=3, threads=1)


def test_whoever_says_what_was_labelled_scores_one(
    tmp_path, tiny_base, tiny_adapter, language_targets, monkeypatch
):
    targets = sealed_targets(tmp_path / "targets", language_targets)
    gold = {
        example.messages[-1]["content"]: example
        for example in read_examples(targets / "validation.jsonl")
    }
    silent = set()

    async def complete(self, requests):
        asked = [gold[request.messages[-1]["content"]] for request in requests]
        for request, example in zip(requests, asked, strict=True):
            assert request.schema == decoding_schema("labels", example.numbered)
        return [
            ChatAnswer("", "error", error="away")
            if example.about in silent
            else ChatAnswer(example.answer, "stop")
            for example in asked
        ]

    monkeypatch.setattr(TransformersChatEngine, "complete", complete)
    whole = [labels_score(tiny_base, tiny_adapter, targets, most=n, threads=1) for n in (4, 99)]
    assert whole == [1.0, 1.0]
    silent |= {example.about for example in list(gold.values())[:6]}
    assert labels_score(tiny_base, tiny_adapter, targets, most=99, threads=1) == pytest.approx(0.5)


def test_targets_without_labels_tell_nothing_apart(
    tmp_path, tiny_base, tiny_adapter, language_targets
):
    targets = sealed_targets(tmp_path / "targets", language_targets, task="overall")
    with pytest.raises(DataUnfitError, match="has no labels"):
        labels_score(tiny_base, tiny_adapter, targets, most=2, threads=1)


def test_a_language_models_rung_trains_an_adapter_and_scores_it(
    tmp_path, tiny_base, language_targets
):
    rung = climb(
        Job(
            kind="language",
            recipe=(
                "name: toy\nthreads: 1\nlora: {rank: 2, alpha: 4}\n"
                "tuning: {quantized_base: none, epochs: 1, batch_examples: 4, max_tokens: 1024}"
            ),
            data=sealed_targets(tmp_path / "targets", language_targets),
            start=tiny_base,
            work=tmp_path / "work",
            shares=(1 / 3, 1.0),
            scored_examples=2,
        ),
        1 / 3,
    )
    assert 0 <= rung.score <= 1
    assert not list((tmp_path / "work" / "models").iterdir())
