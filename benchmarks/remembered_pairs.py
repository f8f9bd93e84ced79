"""How many field pairs a model remembers: read off the module, whatever version of attfm it is of."""

from typing import Any


def remembered_pairs(model: Any) -> int | None:
    """Return how many field pairs an `attfm.Model` has a memory of, by any member of an ensemble.

    None where this version of attfm has no pair memory.
    """
    members = list(getattr(model.module, "members", [model.module]))
    if not all(hasattr(member, "remembered_pairs") for member in members):
        return None
    return len({int(pair) for member in members for pair in member.remembered_pairs})
