import pytest
from optuna.trial import TrialState

from data.errors import ArtifactError
from training.recipe import parse_recipe
from training.search_space import distributions, parse_search_space
from training.tuning_report import Search, write_tuning
from training.tuning_study import REASON, open_study, propose, take_up
from training.tuning_tracking import track_tuning

RECIPE = parse_recipe("name: x\nfine_tuning: {epochs: 9}")
SPACE = "parameters: {fine_tuning.learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}}"


@pytest.fixture
def tuning(tmp_path):
    """The artifact of three trials: a whole one, a pruned one, and one that failed."""
    space = parse_search_space(SPACE, "encoder", RECIPE)
    study = open_study(tmp_path, "study", "median", rungs=2)
    take_up(study, RECIPE, space)
    for rungs, ending in (((0.4, 0.6), None), ((0.3,), TrialState.PRUNED), ((), TrialState.FAIL)):
        trial = propose(study, distributions(space, RECIPE), seed=0)
        for number, score in enumerate(rungs):
            trial.report(score, step=3**number)
        trial.set_user_attr("seconds", 2.5)
        if ending is TrialState.FAIL:
            trial.set_user_attr(REASON, "out of memory")
        study.tell(trial, rungs[-1] if ending is None else None, state=ending)
    search = Search("encoder", RECIPE, space, "median", 0, "d" * 64, "e" * 64)
    write_tuning(study, search, tmp_path / "tuning")
    return tmp_path / "tuning"


def runs_of(registry):
    experiment = registry.client.get_experiment_by_name("matjip-tuning")
    return registry.client.search_runs([experiment.experiment_id])


def test_a_tuning_is_a_run_with_its_trials_below_it(registry, tuning):
    run_id = track_tuning(registry.uri, tuning)
    parent = registry.client.get_run(run_id)
    assert parent.data.metrics["three_class_macro_f1"] == 0.6
    assert parent.data.metrics["untuned/three_class_macro_f1"] == 0.6
    assert parent.data.params["fine_tuning.epochs"] == "9.0"
    assert parent.data.tags["part"] == "validation"
    curve = registry.client.get_metric_history(run_id, "trials/three_class_macro_f1")
    assert sorted((point.step, point.value) for point in curve) == [(0, 0.6), (1, 0.3)]
    files = {file.path for file in registry.client.list_artifacts(run_id)}
    assert {"best_recipe.yaml", "history.svg", "trials.json", "trials.md"} <= files

    below = {
        run.data.tags["ending"]: run
        for run in runs_of(registry)
        if run.data.tags.get("mlflow.parentRunId") == run_id
    }
    assert set(below) == {"complete", "pruned", "failed"}
    assert below["failed"].data.tags["reason"] == "out of memory"
    assert below["failed"].data.metrics == {"seconds": 2.5, "peak_bytes": 0.0}
    rungs = registry.client.get_metric_history(
        below["complete"].info.run_id, "three_class_macro_f1"
    )
    assert sorted((point.step, point.value) for point in rungs) == [(333, 0.4), (1000, 0.6)]
    assert float(below["complete"].data.params["fine_tuning.learning_rate"]) == 3e-4


def test_the_same_tuning_is_recorded_once(registry, tuning):
    assert track_tuning(registry.uri, tuning) == track_tuning(registry.uri, tuning)
    assert len(runs_of(registry)) == 4


def test_an_altered_tuning_is_refused(registry, tuning):
    (tuning / "trials.json").write_text("[]")
    with pytest.raises(ArtifactError, match=r"trials\.json"):
        track_tuning(registry.uri, tuning)
