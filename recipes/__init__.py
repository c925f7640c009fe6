"""Corpora from one command each: ``python -m recipes CORPUS get|prepare|evaluate``.

A recipe is a module ``recipes.<corpus>.recipe`` that describes one corpus (:class:`Recipe`): where
it is to be had, how its own files are read, which protocols it makes. Everything else is shared.
"""

from recipes.recipe import NAMES, Expected, Protocol, Recipe, load

__all__ = ["NAMES", "Expected", "Protocol", "Recipe", "load"]
