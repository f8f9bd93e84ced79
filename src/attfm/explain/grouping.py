"""Fields summed into groups that people name."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.errors import ConfigError, nearest


def group_fields(
    fields: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the names of groups and remaining fields, and each field's place among them, int64 (fields,)."""
    of_field: dict[str, str] = {}
    problems = []
    for group, members in groups.items():
        for member in [members] if isinstance(members, str) else members:
            if member not in fields:
                problems.append(f"group '{group}' has '{member}', which is no field{nearest(member, list(fields))}")
            elif member in of_field:
                problems.append(f"'{member}' is in the groups '{of_field[member]}' and '{group}'")
            of_field[member] = group
        if group in fields and of_field.get(group) != group:
            problems.append(f"group '{group}' is called like a field outside it")
    if problems:
        raise ConfigError(f"The groups don't fit the fields: {'; '.join(problems)}.")
    names = tuple(dict.fromkeys(of_field.get(field, field) for field in fields))
    return names, np.array([names.index(of_field.get(field, field)) for field in fields], np.int64)


def summed(values: NDArray[Any], place: NDArray[np.int64], size: int) -> NDArray[Any]:
    """Return the columns of values, (rows, columns, ...), summed by their place: (rows, size, ...)."""
    total = np.zeros((len(values), size, *values.shape[2:]), values.dtype)
    for column, to in enumerate(place):
        total[:, to] += values[:, column]
    return total
