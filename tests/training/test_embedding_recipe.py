from pathlib import Path

import pytest
import yaml

import training
from data.errors import SettingsError
from training.embedding_recipe import embedding_recipe_text, parse_embedding_recipe

FOLDER = Path(training.__file__).parent / "recipes"
SHIPPED = sorted(
    path.stem
    for path in FOLDER.glob("*.yaml")
    if "demanded" in yaml.safe_load(path.read_text(encoding="utf-8"))
)


def test_there_are_recipes():
    assert SHIPPED == ["embedding-tiny", "ko-sroberta"]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_loads_under_its_own_name(name):
    text = embedding_recipe_text(name)
    recipe = parse_embedding_recipe(text)
    assert recipe.name == name
    assert embedding_recipe_text(str(FOLDER / f"{name}.yaml")) == text
    assert recipe.encoder_recipe().windows == recipe.windows


def test_every_wrong_key_is_named_at_once():
    with pytest.raises(SettingsError) as refused:
        parse_embedding_recipe(
            """
            name: Has Spaces
            pooling: last
            contrastive: {batch_pairs: 1, temprature: 0.1}
            demanded: [fp8]
            """,
            where="the file",
        )
    said = str(refused.value)
    for part in (
        "the file",
        "name='Has Spaces'",
        "pooling='last'",
        "contrastive.batch_pairs=1",
        "contrastive.temprature=0.1",
        "demanded.0='fp8'",
    ):
        assert part in said
