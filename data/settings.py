"""YAML text to frozen settings, once, at the edge: unknown keys and wrong values fail together."""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from data.errors import SettingsError

Settings = TypeVar("Settings", bound=BaseModel)
_SHOWN: Final = 200
"""Characters of a wrong value that a message repeats: enough to find it in the file."""


def check_settings(kind: type[Settings], values: Any, *, where: str) -> Settings:
    """Settings of a kind from plain values; none are the defaults.

    Raises:
        SettingsError: names every wrong key at once.
    """
    try:
        return kind.model_validate({} if values is None else values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'it'}={_shown(item.get('input'))}: {item['msg']}"
            for item in error.errors(include_url=False)
        )
        known = sorted(kind.model_fields)
        raise SettingsError(f"{where}: {problems}; mend these keys (known: {known})") from error


def parse_settings(kind: type[Settings], text: str, *, where: str) -> Settings:
    """Settings of a kind from YAML text; empty text is the defaults.

    Raises:
        SettingsError: it is not YAML, or names every wrong key at once.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{where} is not YAML: {error}; correct it") from error
    return check_settings(kind, values, where=where)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``a.b.c`` → value, as MLflow's parameters are."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found
