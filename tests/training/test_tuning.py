import json
from contextlib import contextmanager

import filelock
import pytest

from data.errors import ArtifactError, DataUnfitError, SettingsError
from data.manifest import read_manifest, write_labelled_reviews, write_manifest
from training import tuning
from training.recipe import parse_recipe
from training.search_space import recipe_text
from training.trial import Rung
from training.trial_process import TimeUpError, TrialFailedError
from training.tuning import tune

SPACE = """
parameters:
  fine_tuning.learning_rate: {low: 1.0e-6, high: 1.0e-2, log: true}
  fine_tuning.batch_tokens: {choices: [256, 512]}
"""
EPOCHS = 3


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    short = tiny_recipe.fine_tuning.model_copy(update={"epochs": EPOCHS})
    return recipe_text(tiny_recipe.model_copy(update={"fine_tuning": short}))


@pytest.fixture(scope="module")
def blind_split(tmp_path_factory, toy_reviews):
    """A sealed split whose test part nobody can read."""
    folder = tmp_path_factory.mktemp("blind") / "split"
    folder.mkdir()
    write_labelled_reviews(folder / "train.jsonl", toy_reviews[:90])
    write_labelled_reviews(folder / "validation.jsonl", toy_reviews[90:126])
    (folder / "test.jsonl").write_text("not a review\n")
    write_manifest(folder, "split", {"seed": 0, "snapshot_id": "toy"})
    return folder


@pytest.fixture
def call(tmp_path, recipe, blind_split, tiny_encoder):
    """``tune`` with what it needs; each keyword replaces one."""

    def run(**changes):
        given = {
            "kind": "encoder",
            "recipe": recipe,
            "space": SPACE,
            "data": blind_split,
            "start": tiny_encoder,
            "out": tmp_path / "out",
            "checkpoints": tmp_path / "checkpoints",
            "trials": 2,
            "wall_minutes": 10.0,
        }
        return tune(**(given | changes))

    return run


@pytest.fixture
def scripted(monkeypatch):
    """Trials without processes: a function of the recipe gives each rung's score, or raises."""

    def use(answer):
        started = []

        class Running:
            def __init__(self, job):
                self.recipe, self.shares = parse_recipe(job.recipe), iter(job.shares)

            def next_rung(self, deadline):
                share = next(self.shares)
                started[-1][1].append(share)
                score = answer(self.recipe, share)
                return Rung(share=share, score=score, seconds=1.0, peak_bytes=2**20)

            def go_on(self):
                pass

        @contextmanager
        def fake(job, folder):
            started.append((parse_recipe(job.recipe), []))
            yield Running(job)

        monkeypatch.setattr(tuning, "trial_process", fake)
        return started

    return use


def trials_of(tmp_path):
    return json.loads((tmp_path / "out" / "trials.json").read_text())


def test_two_real_trials_make_a_recipe_and_its_evidence(tmp_path, call, recipe, monkeypatch):
    manifest = call()
    out = tmp_path / "out"
    assert read_manifest(out, "tuning") == manifest
    trials = trials_of(tmp_path)
    assert [trial["ending"] for trial in trials] == ["complete", "complete"]
    assert trials[0]["own"]
    assert trials[0]["values"] == {
        "fine_tuning.learning_rate": 5e-3,
        "fine_tuning.batch_tokens": 512,
    }
    assert all(list(trial["rungs"]) == ["0.333", "1.000"] for trial in trials)
    assert all(trial["peak_bytes"] > 2**27 and trial["seconds"] > 0 for trial in trials)
    best = max(trials, key=lambda trial: trial["score"])
    assert manifest.facts["best"]["score"] == best["score"] >= trials[0]["score"]
    chosen = parse_recipe((out / "best_recipe.yaml").read_text())
    assert chosen.name == "test-tuned"
    assert chosen.fine_tuning.batch_tokens == best["values"]["fine_tuning.batch_tokens"]
    assert chosen.fine_tuning.epochs == EPOCHS
    untouched = parse_recipe(recipe).model_dump(exclude={"name": True, "fine_tuning": True})
    assert chosen.model_dump(exclude={"name": True, "fine_tuning": True}) == untouched
    assert "the recipe's own values" in (out / "trials.md").read_text()
    assert (out / "history.svg").read_text().startswith("<svg")

    # Nothing is left to do: the same call reads the journal, and starts no process.
    monkeypatch.setattr(tuning, "trial_process", None)
    assert call(out=tmp_path / "again").digest == manifest.digest
    [work] = (tmp_path / "checkpoints").iterdir()
    assert {path.name for path in work.iterdir()} >= {"journal.log", "scores", "trials"}
    assert not (work / "checkpoints").exists()


def test_the_best_whole_trial_wins_and_a_pruned_one_never(tmp_path, call, scripted):
    def answer(recipe, share):
        rate = recipe.fine_tuning.learning_rate
        if share < 1:
            # Higher than any whole score: what counts is which trials are compared.
            return 0.95 if rate == 5e-3 else 0.9 - rate
        return 0.6 if rate == 5e-3 else 0.61 + rate

    started = scripted(answer)
    manifest = call(trials=8)
    trials = trials_of(tmp_path)
    endings = [trial["ending"] for trial in trials]
    assert endings[:3] == ["complete"] * 3
    assert "pruned" in endings
    assert all(
        len(shares) == 1 + (e == "complete")
        for (_, shares), e in zip(started, endings, strict=True)
    )
    whole = [trial for trial in trials if trial["ending"] == "complete"]
    assert manifest.facts["best"]["number"] == max(whole, key=lambda t: t["score"])["number"]
    assert manifest.facts["untuned_score"] == 0.6
    assert manifest.facts["trials"] == {e: endings.count(e) for e in set(endings)}


def test_hyperband_prunes_too(tmp_path, call, scripted):
    scripted(lambda recipe, share: share - recipe.fine_tuning.learning_rate)
    call(trials=9, pruner="hyperband", space=f"{SPACE}\nrungs: 3")
    assert {"complete", "pruned"} <= {trial["ending"] for trial in trials_of(tmp_path)}


def test_a_higher_cap_adds_to_what_is_there(tmp_path, call, scripted):
    started = scripted(lambda recipe, share: 0.5)
    call(trials=2)
    call(trials=4)
    assert len(started) == 4
    assert [trial["number"] for trial in trials_of(tmp_path)] == [0, 1, 2, 3]


def test_failed_trials_are_recorded_and_do_not_win(tmp_path, call, scripted):
    def answer(recipe, share):
        if recipe.fine_tuning.batch_tokens == 256:
            raise TrialFailedError("no memory | on the device")
        return 0.5

    scripted(answer)
    manifest = call(trials=6)
    failed = [trial for trial in trials_of(tmp_path) if trial["ending"] == "failed"]
    assert failed
    assert all(trial["reason"] == "no memory | on the device" for trial in failed)
    assert all(trial["score"] is None for trial in failed)
    assert manifest.facts["best"]["values"]["fine_tuning.batch_tokens"] == 512
    assert "no memory / on the device" in (tmp_path / "out" / "trials.md").read_text()


def test_values_that_do_not_go_together_fail_their_trial_alone(tmp_path, call, scripted):
    scripted(lambda recipe, share: 0.5)
    space = "parameters: {windows.overlap_tokens: {choices: [6, 22]}}"
    call(space=space, trials=5)
    reasons = {trial["reason"] for trial in trials_of(tmp_path)}
    assert None in reasons
    assert any("leaves no step" in reason for reason in reasons if reason)


def test_it_gives_up_where_every_trial_fails(call, scripted):
    def answer(recipe, share):
        raise TrialFailedError("the split is empty")

    started = scripted(answer)
    with pytest.raises(DataUnfitError, match="all 3 trials failed, the first with: the split"):
        call(trials=20)
    assert len(started) == 3


def test_the_trial_that_the_wall_cap_ends_is_taken_up_again(tmp_path, call, scripted):
    def answer(recipe, share):
        if len(started) == 2:
            raise TimeUpError
        return 0.5

    started = scripted(answer)
    call(trials=3)
    assert [trial["ending"] for trial in trials_of(tmp_path)] == ["complete", "cut off"]
    scripted(lambda recipe, share: 0.5)
    call(trials=3)
    trials = trials_of(tmp_path)
    assert [trial["ending"] for trial in trials] == ["complete", "cut off", "complete", "complete"]
    assert trials[2]["values"] == trials[1]["values"] != trials[3]["values"]


def test_without_a_whole_trial_there_is_no_result(tmp_path, call, scripted):
    def answer(recipe, share):
        raise TimeUpError

    scripted(answer)
    with pytest.raises(SettingsError, match=r"none of 1 trials came to its end \(cut off\)"):
        call()
    assert not (tmp_path / "out" / "manifest.json").exists()
    scripted(lambda recipe, share: 0.5)
    call()
    assert [trial["own"] for trial in trials_of(tmp_path)] == [True, True, False]


def test_a_time_that_is_over_starts_nothing(call, scripted):
    started = scripted(lambda recipe, share: 0.5)
    with pytest.raises(SettingsError, match="none of 0 trials came to its end"):
        call(wall_minutes=1e-9)
    assert started == []


def test_too_little_memory_is_refused_before_a_trial_starts(call, scripted, monkeypatch):
    started = scripted(lambda recipe, share: 0.5)
    with pytest.raises(SettingsError, match=r"a trial needs 1000000\.0 GiB of memory, .* GiB are"):
        call(space=f"{SPACE}\nmemory_gib: 1.0e6")
    assert started == []
    monkeypatch.setattr(tuning, "free_bytes", lambda: 2**29)
    with pytest.raises(SettingsError, match=r"a trial needs 1\.0 GiB of memory, 0\.5 GiB are free"):
        call()
    assert started == []


def test_once_trials_have_run_the_most_they_held_is_what_is_needed(call, scripted, monkeypatch):
    started = scripted(lambda recipe, share: 0.5)  # they say that they held a mebibyte
    free = iter([2**33, 2**21, 2**19])
    monkeypatch.setattr(tuning, "free_bytes", lambda: next(free))
    with pytest.raises(SettingsError, match="a trial needs"):
        call(trials=3)
    assert len(started) == 2


def test_two_processes_do_not_tune_the_same(tmp_path, call, scripted):
    scripted(lambda recipe, share: 0.5)
    call(trials=1)
    [work] = (tmp_path / "checkpoints").iterdir()
    with (
        filelock.FileLock(work / "tuning.lock"),
        pytest.raises(ArtifactError, match="another process tunes"),
    ):
        call(trials=2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trials": 0}, "trials=0"),
        ({"wall_minutes": 0.0}, r"wall_minutes=0\.0"),
        ({"wall_minutes": float("nan")}, "wall_minutes=nan"),
        ({"wall_minutes": float("inf")}, "wall_minutes=inf"),
        ({"kind": "vision"}, "kind is 'vision'"),
        ({"pruner": "wilcoxon"}, "pruner is 'wilcoxon'"),
        ({"recipe": "name: x\nsead: 1"}, "sead=1"),
        ({"space": "parameters: {fine_tuning.rate: {choices: [1]}}"}, "fine_tuning.rate"),
        (
            {"space": "parameters: {fine_tuning.learning_rate: {low: 0.1, high: 0.01}}"},
            r"low=0\.1 is not below high=0\.01",
        ),
    ],
)
def test_what_cannot_be_tuned_is_refused(call, scripted, changes, said):
    started = scripted(lambda recipe, share: 0.5)
    with pytest.raises(SettingsError, match=said):
        call(**changes)
    assert started == []


def test_inputs_of_another_kind_are_refused(call, tiny_encoder):
    with pytest.raises(ArtifactError, match="expected 'split'"):
        call(data=tiny_encoder)
