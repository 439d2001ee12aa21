"""What tuning may change, and between which values: YAML to a frozen space, held to its recipe.

A key is a recipe's own (``fine_tuning.learning_rate``); what it may be is a range or a list:

    parameters:
      fine_tuning.learning_rate: {low: 1.0e-4, high: 1.0e-3, log: true}
      fine_tuning.batch_tokens: {choices: [1024, 2048]}
    rungs: 2

Only what the trainer reads can be tuned: the encoder or base is given, so its sizes and its
pretraining change nothing; a seed that is chosen by its score is luck.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, Self

import yaml
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data.errors import SettingsError
from data.manifest import canonical_digest
from data.settings import check_settings, flat, parse_settings
from training.language_recipe import LanguageRecipe, parse_language_recipe
from training.recipe import Recipe, parse_recipe

Kind = Literal["encoder", "language"]
Value = bool | int | float | str | None
AnyRecipe = Recipe | LanguageRecipe

TUNABLE: Final[dict[Kind, tuple[str, ...]]] = {
    "encoder": ("fine_tuning", "windows"),
    "language": ("lora", "tuning"),
}
"""Sections of a recipe that a trial's training reads."""
EPOCHS: Final[dict[Kind, str]] = {"encoder": "fine_tuning.epochs", "language": "tuning.epochs"}
REDUCTION: Final = 3
"""Each rung trains this many times as long as the one before."""
_PARSERS: Final[dict[Kind, Callable[[str], AnyRecipe]]] = {
    "encoder": parse_recipe,
    "language": parse_language_recipe,
}


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Range(_Settings):
    """Any number from ``low`` to ``high``, both included."""

    low: int | float
    high: int | float
    log: bool = Field(default=False, description="Draw evenly on a logarithmic scale.")

    @model_validator(mode="after")
    def _goes_up(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low={self.low!r} is not below high={self.high!r}; exchange them")
        if self.log and self.low <= 0:
            raise ValueError(f"low={self.low!r} has no logarithm; raise it above 0, or drop log")
        return self


class Choices(_Settings):
    """One of a list."""

    choices: tuple[Value, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(map(repr, self.choices))) != len(self.choices):
            raise ValueError(f"choices={list(self.choices)!r} names a value twice; name it once")
        return self


class SearchSpace(_Settings):
    """What may change, and how a trial is cut into rungs."""

    parameters: dict[str, Range | Choices] = Field(min_length=1)
    rungs: int = Field(
        default=2,
        ge=1,
        le=4,
        description="Trainings of a trial, each three times as long; it may be pruned between.",
    )
    scored_examples: int = Field(
        default=200, ge=1, description="Of a language model: validation reviews that are asked."
    )
    memory_gib: float | None = Field(
        default=None, gt=0, description="What a trial needs; none estimates it, then measures it."
    )

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the recipe's epochs, a rung each; the last is the whole."""
        return tuple(REDUCTION ** (rung - self.rungs + 1) for rung in range(self.rungs))


def recipe_of(kind: Kind, text: str) -> AnyRecipe:
    """The recipe of a kind from YAML text.

    Raises:
        SettingsError: there is no such kind, or the recipe is wrong.
    """
    if kind not in _PARSERS:
        raise SettingsError(f"kind is {kind!r}; expected one of {sorted(_PARSERS)!r}")
    return _PARSERS[kind](text)


def recipe_digest(recipe: AnyRecipe) -> str:
    """Changes whenever a setting does."""
    return canonical_digest(recipe.model_dump(mode="json"))


def recipe_text(recipe: AnyRecipe) -> str:
    """A recipe as YAML, every setting written out."""
    dumped: str = yaml.safe_dump(
        recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True
    )
    return dumped


def read_search_space(name_or_path: str) -> str:
    """The YAML text of a space in training/spaces by name, or of any by path; not checked.

    Raises:
        SettingsError: there is no such space.
    """
    shipped = resources.files("training") / "spaces"
    path = Path(name_or_path)
    try:
        if path.suffix in {".yaml", ".yml"}:
            return path.read_text(encoding="utf-8")
        return (shipped / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        known = sorted(each.name[:-5] for each in shipped.iterdir())
        raise SettingsError(
            f"no search space {name_or_path!r}: pass a path to a .yaml file in UTF-8, or one of "
            f"{known}"
        ) from error


def parse_search_space(text: str, kind: Kind, recipe: AnyRecipe) -> SearchSpace:
    """A space from YAML text, held to the recipe that it is for.

    Raises:
        SettingsError: names every wrong key at once: one that the recipe has not, one that changes
            nothing, a range that does not go up, a value that the recipe refuses.
    """
    space = parse_settings(SearchSpace, text, where="search space")
    known = flat(recipe.model_dump(mode="json"))
    tunable = [name for name in known if name.split(".")[0] in TUNABLE[kind]]
    problems = [
        problem
        for key, span in space.parameters.items()
        for problem in (
            _problems_of(key, span, recipe, known[key])
            if key in tunable
            else [f"{key!r} cannot be tuned for {kind!r}"]
        )
    ]
    if problems:
        raise SettingsError(
            f"search space: {'; '.join(problems)}; mend these keys (tunable: {sorted(tunable)})"
        )
    return space


def _problems_of(
    key: str, span: Range | Choices, recipe: AnyRecipe, current: Value
) -> Iterator[str]:
    if isinstance(span, Choices):
        values: tuple[Value, ...] = span.choices
    else:
        values = (span.low, span.high)
        if isinstance(current, bool) or not isinstance(current, int | float):
            yield f"{key}={current!r} is no number; list its choices"
            return
    for value in values:
        try:
            type(recipe).model_validate(_changed(recipe, {key: value}))
        except ValidationError as error:
            # Only the key's own: with other keys it may yet fit.
            yield from (
                f"{key}={value!r}: {each['msg']}"
                for each in error.errors(include_url=False)
                if ".".join(map(str, each["loc"])) == key
            )


def distributions(space: SearchSpace, recipe: AnyRecipe) -> dict[str, BaseDistribution]:
    """The space as Optuna draws from it; a whole number stays one."""
    current = flat(recipe.model_dump(mode="json"))

    def drawn(key: str, span: Range | Choices) -> BaseDistribution:
        if isinstance(span, Choices):
            return CategoricalDistribution(list(span.choices))
        if isinstance(current[key], int):
            return IntDistribution(int(span.low), int(span.high), log=span.log)
        return FloatDistribution(float(span.low), float(span.high), log=span.log)

    return {key: drawn(key, span) for key, span in space.parameters.items()}


def own_values(space: SearchSpace, recipe: AnyRecipe) -> dict[str, Value] | None:
    """The recipe's own point of the space; None where it lies outside."""
    current = flat(recipe.model_dump(mode="json"))

    def inside(key: str, span: Range | Choices) -> bool:
        value = current[key]
        return (
            value in span.choices if isinstance(span, Choices) else span.low <= value <= span.high
        )

    if not all(inside(key, span) for key, span in space.parameters.items()):
        return None
    return {key: current[key] for key in space.parameters}


def changed_recipe(recipe: AnyRecipe, values: Mapping[str, Value]) -> AnyRecipe:
    """A recipe with some settings replaced, by dotted key.

    Raises:
        SettingsError: the values do not go together.
    """
    return check_settings(type(recipe), _changed(recipe, values), where="recipe of the trial")


def shortened(kind: Kind, recipe: AnyRecipe, share: float) -> AnyRecipe:
    """A recipe that trains for a share of its epochs."""
    epochs = flat(recipe.model_dump(mode="json"))[EPOCHS[kind]]
    return changed_recipe(recipe, {EPOCHS[kind]: epochs * share})


def _changed(recipe: AnyRecipe, values: Mapping[str, Value]) -> dict[str, Any]:
    dumped = recipe.model_dump(mode="json")
    for key, value in values.items():
        *path, name = key.split(".")
        section = dumped
        for part in path:
            section = section[part]
        section[name] = value
    return dumped
