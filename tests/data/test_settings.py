import pytest
from pydantic import BaseModel, ConfigDict, Field

from data.errors import SettingsError
from data.settings import check_settings, flat, parse_settings


class Inner(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(default=3, ge=1)


class Outer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "x"
    inner: Inner = Inner()


@pytest.mark.parametrize("text", ["", "\n\n", "# only words\n", "null"])
def test_nothing_is_the_defaults(text):
    assert parse_settings(Outer, text, where="here") == Outer()


def test_values_are_read():
    assert parse_settings(Outer, "name: 맛\ninner: {size: 9}", where="here") == Outer(
        name="맛", inner=Inner(size=9)
    )
    assert check_settings(Outer, {"name": "y"}, where="here").name == "y"


def test_every_wrong_key_is_named_at_once():
    with pytest.raises(SettingsError) as refused:
        parse_settings(Outer, "nmae: y\nname: 5\ninner: {size: 0, sise: 2}", where="the file")
    said = str(refused.value)
    for part in (
        "the file",
        "nmae='y'",
        "name=5",
        "inner.size=0",
        "inner.sise=2",
        "['inner', 'name']",
    ):
        assert part in said


@pytest.mark.parametrize("text", ["name: [", "a: b: c", "\x00", "\tname: x"])
def test_what_is_not_yaml_is_refused(text):
    with pytest.raises(SettingsError, match="the file is not YAML"):
        parse_settings(Outer, text, where="the file")


@pytest.mark.parametrize("text", ["[]", "5", "word", "1: 2", "- name: x"])
def test_yaml_that_is_no_mapping_of_names_is_refused(text):
    with pytest.raises(SettingsError, match="the file"):
        parse_settings(Outer, text, where="the file")


def test_yaml_runs_nothing(tmp_path):
    path = tmp_path / "ran"
    with pytest.raises(SettingsError, match="is not YAML"):
        parse_settings(Outer, f"name: !!python/object/apply:os.mkdir ['{path}']", where="the file")
    assert not path.exists()


def test_nested_settings_become_flat_names() -> None:
    assert flat({"a": 1, "b": {"c": 2, "d": {"e": None}}}) == {"a": 1, "b.c": 2, "b.d.e": None}
    assert flat({}) == {}


def test_a_long_value_is_not_repeated_whole() -> None:
    with pytest.raises(SettingsError) as told:
        check_settings(Outer, {"name": ["길다"] * 100_000}, where="here")
    assert len(str(told.value)) < 1_000
    assert "characters)" in str(told.value)
