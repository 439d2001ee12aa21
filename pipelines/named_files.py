"""A digest of the files that settings name: a cache compares parameters, and a path stays the same.

Without it, a model's folder or a file of pairs that was written anew would give what the old one
gave.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data.errors import SettingsError
from data.manifest import canonical_digest, file_sha256
from data.settings import parse_settings
from training.embedding_recipe import parse_embedding_recipe
from training.evaluation.retrieval_settings import RetrievalSettings


def recipe_files_digest(recipe: str) -> str:
    """Of what an embedding recipe, as YAML text, is made from.

    Raises:
        SettingsError: it is not a recipe, or a file that it names cannot be read.
    """
    settings = parse_embedding_recipe(recipe)
    return files_digest(
        (settings.pretrained, settings.encoder.pretrained, settings.contrastive.pairs_file)
    )


def evaluation_files_digest(settings: str) -> str:
    """Of what an embedding evaluation's settings, as YAML text, read.

    Raises:
        SettingsError: they are not such settings, or a file that they name cannot be read.
    """
    parsed = parse_settings(RetrievalSettings, settings, where="evaluation settings")
    return files_digest((parsed.korsts,))


def files_digest(sources: Iterable[str | None]) -> str:
    """Changes with the content of every file or folder here, and with every name of another kind.

    Args:
        sources: paths, names in a hub, or nothing.

    Raises:
        SettingsError: a file cannot be read.
    """
    return canonical_digest([_said(source) for source in sources])


def _said(source: str | None) -> Any:
    path = Path(source or "")
    try:
        if not source:
            return None
        if path.is_file():
            return file_sha256(path)
        if path.is_dir():
            files = sorted(each for each in path.rglob("*") if each.is_file())
            return {str(each.relative_to(path)): file_sha256(each) for each in files}
    except OSError as error:
        raise SettingsError(f"{source!r} cannot be read: {error}; mend its permissions") from error
    return source
