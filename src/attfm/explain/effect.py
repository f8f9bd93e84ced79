"""One term of one row's account, with the names and values that people read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Effect:
    """One term of one row's account: a field's main effect, or a pair's.

    Attributes
    ----------
    fields : tuple of str, the field, ("age",), or the two of a pair, ("age", "job")
    values : tuple of str, what each of them is in this row: "[37, 40)", "missing", ..
    effect : float, signed, in logits or in a regression target's unit
    attention, applied : float or None, weights a_ij and A_ij of a pair, or summed over the pairs inside a group; None
        of a field in an explanation without groups, attention also where the model has none
    memory : float or None
        How much of a pair's effect is remembered of its two values; None of a field, and of a pair without a memory.
        In the centred view it is the raw one, and the rest of the effect is relative to the averages.
    seen : int or None, in how many training rows the two values stood together, where the pair has a memory
    spread : float or None, standard error of the effect; None of one model (see `Explanation.spread`)

    Examples
    --------
    >>> effect = Effect(("age", "job"), ("[37, 40)", "cook"), -0.25, attention=0.1, applied=1.2)
    >>> f"{effect.name} = {effect.value}: {effect.effect}"
    'age × job = [37, 40) × cook: -0.25'
    """

    fields: tuple[str, ...]
    values: tuple[str, ...]
    effect: float
    attention: float | None = None
    applied: float | None = None
    memory: float | None = None
    seen: int | None = None
    spread: float | None = None

    @property
    def name(self) -> str:
        """What is printed for the fields: "age × job"."""
        return joined(self.fields)

    @property
    def value(self) -> str:
        """What is printed for the values: "[37, 40) × cook"."""
        return joined(self.values)

    @property
    def remembered(self) -> str:
        """How much of a pair's effect is remembered, from how many rows: "+0.1234, seen 14 times"; else ""."""
        if self.memory is None:
            return ""
        few = {None: "", 0: ", not seen in training", 1: ", seen once"}
        return f"{self.memory:+.4f}{few.get(self.seen, f', seen {self.seen:,} times')}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers, name and value included."""
        texts = {"name": self.name, "value": self.value, "fields": list(self.fields), "values": list(self.values)}
        effect = {
            "effect": self.effect, "spread": self.spread, "attention": self.attention, "applied": self.applied
        }  # fmt: skip
        return texts | effect | ({} if self.memory is None else {"memory": self.memory, "seen": self.seen})


def joined(texts: Sequence[str]) -> str:
    """Return what is printed for one field or two, or for their values."""
    return " × ".join(texts)
