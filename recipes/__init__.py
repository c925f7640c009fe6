"""Recipes to get, prepare and score corpora: ``python -m recipes CORPUS get|prepare|evaluate``.

A recipe is a module ``recipes.<corpus>.recipe`` that describes one corpus (:class:`Recipe`): where
to get it, how to read its original files, and which protocols it makes. All other code is shared.
"""

from recipes.recipe import NAMES, Expected, Protocol, Recipe, load

__all__ = ["NAMES", "Expected", "Protocol", "Recipe", "load"]
