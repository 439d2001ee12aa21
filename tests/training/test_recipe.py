import itertools
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

import training
from data.errors import SettingsError
from training.recipe import Recipe, parse_recipe, read_recipe

# A recipe of a language model has "tuning" (tests/training/test_launch.py), one of an embedding
# model "demanded" (tests/training/test_embedding_recipe.py).
SHIPPED = sorted(
    path.stem
    for path in (Path(training.__file__).parent / "recipes").glob("*.yaml")
    if not {"tuning", "demanded"} & set(yaml.safe_load(path.read_text(encoding="utf-8")))
)


def test_there_are_recipes():
    assert {"tiny", "film-stars", "kr-electra"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_loads_under_its_own_name(name):
    text = read_recipe(name)
    assert parse_recipe(text).name == name
    path = Path(training.__file__).parent / "recipes" / f"{name}.yaml"
    assert read_recipe(str(path)) == text


def test_shipped_recipes_differ():
    digests = [parse_recipe(read_recipe(name)).digest for name in SHIPPED]
    assert len(set(digests)) == len(SHIPPED)


def test_every_wrong_key_is_named_at_once():
    with pytest.raises(SettingsError) as refused:
        parse_recipe(
            """
            name: Has Spaces
            sead: 1
            encoder: {layrs: 3, hidden_size: 31}
            windows: {max_tokens: 600}
            pretraining: {masked_share: 1.0}
            fine_tuning: {learning_rate: 0, loss_weights: {mood: 1.0, sentiment: -1}}
            """,
            where="the file",
        )
    said = str(refused.value)
    for part in (
        "the file",
        "name='Has Spaces'",
        "sead=1",
        "encoder.layrs=3",
        "encoder.hidden_size=31",
        "windows.max_tokens=600",
        "pretraining.masked_share=1.0",
        "fine_tuning.learning_rate=0",
        "fine_tuning.loss_weights.mood",
        "fine_tuning.loss_weights.sentiment=-1",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "name"),
        ("name: x\nencoder: {hidden_size: 192, attention_heads: 5}", "not a multiple"),
        ("name: x\nwindows: {max_tokens: 32, overlap_tokens: 30}", "leaves no step"),
        ("name: x\nfine_tuning: {learning_rate: .inf}", "finite"),
        ("name: x\nfine_tuning: {learning_rate: .nan}", "finite"),
        ("name: x\nfine_tuning: {loss_weights: {}}", "at least 1 item"),
        ("name: [", "not YAML"),
    ],
)
def test_settings_that_no_run_could_use_are_refused(text, said):
    with pytest.raises(SettingsError, match=said):
        parse_recipe(text)


def test_the_widest_overlap_still_moves_on():
    recipe = parse_recipe("name: x\nwindows: {max_tokens: 32, overlap_tokens: 29}")
    assert recipe.windows.overlap_tokens == 29


def test_the_digest_follows_every_setting_and_nothing_else():
    recipe = Recipe(name="x")
    assert parse_recipe("# a remark\nname: x\n").digest == recipe.digest
    others = [
        parse_recipe(f"name: x\n{setting}")
        for setting in (
            "seed: 1",
            "bf16: true",
            "encoder: {layers: 4}",
            "windows: {overlap_tokens: 31}",
            "pretraining: {synthetic_reviews: 1}",
            "fine_tuning: {loss_weights: {sentiment: 1.0}}",
        )
    ]
    for one, other in itertools.combinations([recipe, *others], 2):
        assert one.digest != other.digest


def test_a_recipe_does_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        Recipe(name="x").seed = 5  # type: ignore[misc]
