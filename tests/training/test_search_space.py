import itertools

import pytest

from data.errors import SettingsError
from training.language_recipe import language_recipe_text, parse_language_recipe
from training.recipe import parse_recipe, read_recipe
from training.search_space import (
    changed_recipe,
    distributions,
    own_values,
    parse_search_space,
    read_search_space,
    recipe_of,
    recipe_text,
    shortened,
)

ENCODER = parse_recipe("name: x\nfine_tuning: {epochs: 9, batch_tokens: 512}")
LANGUAGE = parse_language_recipe("name: y")
SPACE = """
parameters:
  fine_tuning.learning_rate: {low: 1.0e-4, high: 1.0e-3, log: true}
  fine_tuning.batch_tokens: {low: 256, high: 2048, log: true}
  fine_tuning.epochs: {choices: [3, 9]}
  windows.max_tokens: {choices: [64, 128]}
"""


def parsed(text, kind="encoder"):
    return parse_search_space(text, kind, ENCODER if kind == "encoder" else LANGUAGE)


def test_a_space_is_drawn_from_as_its_recipe_counts():
    space = parsed(SPACE)
    assert space.rungs == 2
    assert space.shares == (1 / 3, 1)
    spans = distributions(space, ENCODER)
    assert {key: type(span).__name__ for key, span in spans.items()} == {
        "fine_tuning.learning_rate": "FloatDistribution",
        "fine_tuning.batch_tokens": "IntDistribution",
        "fine_tuning.epochs": "CategoricalDistribution",
        "windows.max_tokens": "CategoricalDistribution",
    }
    assert spans["fine_tuning.learning_rate"].log
    assert (spans["fine_tuning.batch_tokens"].low, spans["fine_tuning.batch_tokens"].high) == (
        256,
        2048,
    )


def test_the_recipes_own_point_is_known_where_it_lies_inside():
    assert own_values(parsed(SPACE), ENCODER) == {
        "fine_tuning.learning_rate": 3e-4,
        "fine_tuning.batch_tokens": 512,
        "fine_tuning.epochs": 9.0,
        "windows.max_tokens": 128,
    }
    outside = parsed("parameters: {fine_tuning.epochs: {choices: [1, 2]}}")
    assert own_values(outside, ENCODER) is None


@pytest.mark.parametrize("rungs", [1, 2, 3, 4])
def test_the_last_rung_is_the_whole(rungs):
    shares = parsed(f"{SPACE}\nrungs: {rungs}").shares
    assert len(shares) == rungs
    assert shares[-1] == 1
    assert all(b == pytest.approx(3 * a) for a, b in itertools.pairwise(shares))


def test_every_wrong_key_of_the_recipe_is_named_at_once():
    with pytest.raises(SettingsError) as refused:
        parsed(
            """
            parameters:
              fine_tuning.learning_rat: {choices: [1.0e-4]}
              encoder.layers: {choices: [2, 3]}
              seed: {choices: [1, 2]}
              name: {choices: [a]}
              fine_tuning.learning_rate: {low: -1.0, high: 1.0e-3}
              fine_tuning.batch_tokens: {low: 256.5, high: 512.0}
              fine_tuning.loss_weights.sentiment: {choices: [-1.0]}
              windows.max_tokens: {choices: [64, 4096]}
            """
        )
    said = str(refused.value)
    for part in (
        "'fine_tuning.learning_rat' cannot be tuned",
        "'encoder.layers' cannot be tuned",
        "'seed' cannot be tuned",
        "'name' cannot be tuned",
        "fine_tuning.learning_rate=-1.0",
        "fine_tuning.batch_tokens=256.5",
        "fine_tuning.loss_weights.sentiment=-1.0",
        "windows.max_tokens=4096",
        "fine_tuning.weight_decay",
    ):
        assert part in said
    assert "windows.max_tokens=64" not in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "parameters"),
        ("parameters: {}", "at least 1 item"),
        ("parameters: [", "not YAML"),
        ("parameters: {fine_tuning.epochs: {low: 3.0, high: 1.0}}", "not below"),
        ("parameters: {fine_tuning.epochs: {low: 3.0, high: 3.0}}", "not below"),
        ("parameters: {fine_tuning.weight_decay: {low: 0, high: 1, log: true}}", "no logarithm"),
        ("parameters: {fine_tuning.epochs: {low: 1.0, high: .inf}}", "finite"),
        ("parameters: {fine_tuning.epochs: {choices: []}}", "at least 1 item"),
        ("parameters: {fine_tuning.epochs: {choices: [1, 1]}}", "twice"),
        ("parameters: {fine_tuning.epochs: {from: 1, to: 2}}", "from"),
        ("parameters: {fine_tuning.epochs: {choices: [1]}}\nrungs: 0", "rungs=0"),
        ("parameters: {fine_tuning.epochs: {choices: [1]}}\nmemory_gib: 0", "memory_gib=0"),
        ("parameters: {fine_tuning.epochs: {choices: [1]}}\ntrails: 5", "trails=5"),
    ],
)
def test_spaces_that_cannot_be_drawn_from_are_refused(text, said):
    with pytest.raises(SettingsError, match=said):
        parsed(text)


def test_a_language_model_has_keys_of_its_own():
    space = parsed("parameters: {lora.rank: {low: 4, high: 64, log: true}}", "language")
    assert own_values(space, LANGUAGE) == {"lora.rank": 16}
    with pytest.raises(SettingsError, match=r"'base\.layers' cannot be tuned for 'language'"):
        parsed("parameters: {base.layers: {choices: [2]}}", "language")
    with pytest.raises(SettingsError, match="is no number; list its choices"):
        parsed("parameters: {tuning.quantized_base: {low: 1, high: 2}}", "language")
    with pytest.raises(SettingsError, match="is no number; list its choices"):
        parsed("parameters: {tuning.packing: {low: 0, high: 1}}", "language")


def test_values_that_do_not_go_together_are_refused_when_they_meet():
    assert parsed("parameters: {windows.overlap_tokens: {choices: [100]}}").parameters
    with pytest.raises(SettingsError, match=r"recipe of the trial.*leaves no step"):
        changed_recipe(ENCODER, {"windows.overlap_tokens": 100, "windows.max_tokens": 64})


def test_a_changed_recipe_differs_in_what_was_changed_alone():
    changed = changed_recipe(ENCODER, {"fine_tuning.loss_weights.sentiment": 2.0})
    assert changed.fine_tuning.loss_weights["sentiment"] == 2.0
    same = changed_recipe(changed, {"fine_tuning.loss_weights.sentiment": 1.0})
    assert same == ENCODER


@pytest.mark.parametrize(("kind", "recipe"), [("encoder", ENCODER), ("language", LANGUAGE)])
def test_a_recipe_reads_back_from_its_text(kind, recipe):
    assert recipe_of(kind, recipe_text(recipe)) == recipe


def test_a_rung_trains_for_a_share_of_the_epochs():
    assert shortened("encoder", ENCODER, 1 / 3).fine_tuning.epochs == pytest.approx(3)
    assert shortened("encoder", ENCODER, 1) == ENCODER
    assert shortened("language", LANGUAGE, 1 / 3).tuning.epochs == pytest.approx(1)


def test_an_unknown_kind_is_refused():
    with pytest.raises(SettingsError, match="'vision'"):
        recipe_of("vision", "name: x")


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("encoder", "tiny"),
        ("encoder", "film-stars"),
        ("encoder", "kr-electra"),
        ("language", "language-tiny"),
        ("language", "qwen-7b-qlora"),
        ("language", "qwen-7b-multi-gpu"),
    ],
)
def test_the_shipped_spaces_suit_the_shipped_recipes(name, recipe):
    text = read_recipe(recipe) if name == "encoder" else language_recipe_text(recipe)
    held = recipe_of(name, text)
    space = parse_search_space(read_search_space(name), name, held)
    assert distributions(space, held).keys() == space.parameters.keys()


def test_spaces_are_read_by_name_or_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(SPACE)
    assert read_search_space(str(path)) == SPACE
    with pytest.raises(SettingsError, match=r"'nope'.*'encoder', 'language'"):
        read_search_space("nope")
    (tmp_path / "garbled.yml").write_bytes(b"parameters: \xff\xfe")
    with pytest.raises(SettingsError, match=r"garbled\.yml"):
        read_search_space(str(tmp_path / "garbled.yml"))
