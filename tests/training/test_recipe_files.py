import pytest

from data.errors import SettingsError
from training.embedding_recipe import embedding_recipe_text
from training.language_recipe import language_recipe_text
from training.recipe import read_recipe

KINDS = {
    "tiny": read_recipe,
    "embedding-tiny": embedding_recipe_text,
    "language-tiny": language_recipe_text,
}


@pytest.fixture(params=KINDS)
def read(request):
    return KINDS[request.param]


def test_an_unknown_recipe_names_the_known_ones(read):
    with pytest.raises(SettingsError, match="'nope'") as refused:
        read("nope")
    assert all(name in str(refused.value) for name in KINDS)


def test_files_that_are_no_recipe_are_refused_by_name(read, tmp_path):
    with pytest.raises(SettingsError, match="pass a path"):
        read(str(tmp_path / "absent.yaml"))
    garbled = tmp_path / "garbled.yaml"
    garbled.write_bytes(b"name: \xff\xfe")
    with pytest.raises(SettingsError, match=r"garbled\.yaml"):
        read(str(garbled))
    wrong = tmp_path / "wrong.yml"
    wrong.write_text("name: x\nsead: 1")
    with pytest.raises(SettingsError, match=r"wrong\.yml.*sead=1"):
        read(str(wrong))


def test_a_recipe_of_another_kind_is_refused():
    for own, read in KINDS.items():
        for other in KINDS.keys() - {own}:
            with pytest.raises(SettingsError, match=f"recipe '{other}'"):
                read(other)
