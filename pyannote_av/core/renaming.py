"""Former names of parameters, which files written by earlier versions still use."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any


def current_names(
    values: Mapping[str, Any], former: Mapping[str, str], where: object = None
) -> dict[str, Any]:
    """Replace former names of parameters by their current ones.

    Parameters
    ----------
    values : mapping
        Values by name.
    former : mapping of str to str
        Current name by former name.
    where : object, optional
        File or key that holds the values. A single DeprecationWarning then lists all former names.
        Without `where`, there is no warning, because the user cannot change the file.

    Returns
    -------
    values : dict
        In the same order.

    Raises
    ------
    ValueError
        If a value is given under both names.
    """
    found = [name for name in values if name in former]
    for name in found:
        if former[name] in values:
            raise ValueError(f"{name} is the former name of {former[name]}: give only one of them")
    if found and where is not None:
        renamed = ", ".join(f"{name} is now {former[name]}" for name in found)
        warnings.warn(f"{where}: {renamed}", DeprecationWarning, stacklevel=3)
    return {former.get(name, name): value for name, value in values.items()}
