"""Write ``database.yml`` with the protocols of recipes, for pyannote.database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recipes.corpus import update
from recipes.recipe import COLUMNS, Recipe

_HEAD = """\
# Protocols of the recipes, written by: python -m recipes database
# Each reads what `python -m recipes CORPUS prepare` writes. References are read strictly: what is
# missing or malformed is an error that names file and line.
"""


def declared(recipe: Recipe, folder: str) -> dict[str, Any]:
    """Protocols of a recipe with prepared files in `folder`, relative to ``database.yml``."""
    found = {}
    for protocol in recipe.protocols:
        columns = {n: p for n, p in {**COLUMNS, **protocol.columns}.items() if p}
        entries: dict[str, Any] = {"scope": protocol.scope}
        for subset, name in protocol.subsets.items():
            entries[subset] = {"uri": f"{folder}/{name}.lst"}
            entries[subset] |= {column: f"{folder}/{path}" for column, path in columns.items()}
        found[protocol.name] = entries
    return found


def database(recipes: Iterable[Recipe], folders: Mapping[str, str]) -> str:
    """Generate the content of a ``database.yml``.

    Parameters
    ----------
    recipes : iterable of Recipe
    folders : mapping of str to str
        Folder prepared by each recipe, relative to ``database.yml``.
    """
    import yaml

    protocols = {
        recipe.database: {"SpeakerDiarization": declared(recipe, folders[recipe.name])}
        for recipe in recipes
    }
    return _HEAD + yaml.safe_dump({"Protocols": protocols}, sort_keys=False, width=100)


def write_database(recipes: Iterable[Recipe], path: Path, folders: Mapping[str, str]) -> None:
    """Write a ``database.yml``."""
    update(path, database(recipes, folders))
