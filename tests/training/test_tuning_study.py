import pytest

from data.errors import SettingsError
from training.recipe import parse_recipe
from training.search_space import distributions, parse_search_space
from training.tuning_study import decided, open_study, propose, take_up, was_cut_off

RECIPE = parse_recipe("name: x\nfine_tuning: {learning_rate: 1.0e-3, batch_tokens: 512}")
SPACE = """
parameters:
  fine_tuning.learning_rate: {low: 1.0e-6, high: 1.0e-2, log: true}
  fine_tuning.batch_tokens: {choices: [256, 512]}
"""
OWN = {"fine_tuning.learning_rate": 1e-3, "fine_tuning.batch_tokens": 512}


def begin(folder, space=SPACE):
    """As each call of a step does: open, take up."""
    parsed = parse_search_space(space, "encoder", RECIPE)
    study = open_study(folder, "study", "median", rungs=parsed.rungs)
    take_up(study, RECIPE, parsed)
    spans = distributions(parsed, RECIPE)
    return study, lambda: propose(study, spans, seed=1)


def test_the_recipes_own_values_come_first_where_the_space_has_them(tmp_path):
    _, ask = begin(tmp_path)
    first = ask()
    assert first.params == OWN
    assert first.user_attrs == {"own": True}
    assert ask().params != OWN
    other = tmp_path / "other"
    other.mkdir()
    _, ask = begin(other, "parameters: {fine_tuning.batch_tokens: {choices: [256]}}")
    assert ask().user_attrs == {}


def test_a_study_that_was_cut_in_two_proposes_what_it_would_have_in_one(tmp_path):
    def run(folder, *parts):
        folder.mkdir()
        values = []
        for part in parts:
            study, ask = begin(folder)
            for _ in range(part):
                trial = ask()
                values.append(trial.params)
                study.tell(trial, 1 - trial.params["fine_tuning.learning_rate"])
        return values

    whole = run(tmp_path / "whole", 12)
    assert run(tmp_path / "halves", 3, 5, 4) == whole
    assert len({values["fine_tuning.learning_rate"] for values in whole}) == 12


def test_a_killed_step_goes_on_with_the_trial_it_was_at(tmp_path):
    study, ask = begin(tmp_path)
    first = ask()
    study.tell(first, 0.5)
    second = ask()
    second.report(0.4, step=1)
    # The process dies here; nobody tells the study.
    study, ask = begin(tmp_path)
    assert was_cut_off(study.trials[1])
    assert [trial.number for trial in decided(study)] == [0]
    third = ask()
    assert third.params == second.params != first.params
    assert "own" not in third.user_attrs
    study.tell(third, 0.5)
    study, ask = begin(tmp_path)
    assert ask().params not in (first.params, second.params)
    assert len(study.trials) == 4


def test_a_recipes_own_trial_stays_its_own_when_it_is_tried_again(tmp_path):
    _, ask = begin(tmp_path)
    ask()
    for _ in range(2):  # killed twice at the same place
        _, ask = begin(tmp_path)
        again = ask()
        assert again.params == OWN
        assert again.user_attrs["own"]


def test_an_unknown_pruner_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="pruner is 'wilcoxon'"):
        open_study(tmp_path, "study", "wilcoxon", rungs=2)
