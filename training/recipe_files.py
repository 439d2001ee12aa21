"""The YAML text of a recipe of any kind, by its name in training/recipes or by its path."""

from collections.abc import Callable
from importlib import resources
from pathlib import Path

from data.errors import SettingsError


def recipe_text(name_or_path: str, parse: Callable[..., object]) -> str:
    """A recipe's text as it stands in its file, so that it travels as a pipeline's parameter.

    Args:
        name_or_path: of one in training/recipes, or a path to a .yaml file.
        parse: takes the text, and ``where`` it is from; raises ``SettingsError`` if it is no recipe
            of its kind.

    Raises:
        SettingsError: there is no such recipe, or it has wrong keys or values.
    """
    shipped = resources.files("training") / "recipes"
    path = Path(name_or_path)
    named = shipped / f"{name_or_path}.yaml"
    try:
        text = (path if path.suffix in {".yaml", ".yml"} else named).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(f"recipe {name_or_path!r} is not UTF-8: {error}; save it so") from error
    except OSError as error:
        known = sorted(p.name[:-5] for p in shipped.iterdir() if p.name.endswith(".yaml"))
        raise SettingsError(
            f"no recipe {name_or_path!r}: pass a path to a .yaml file, or one of {known}"
        ) from error
    parse(text, where=f"recipe {name_or_path!r}")
    return text
