"""One column of a table: what it is and how it becomes features."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Kind = Literal["categorical", "numeric", "multi-valued", "datetime", "target", "weight", "ignored"]

# The settings that a column of each kind may have, besides its kind.
OPTIONS: dict[str, tuple[str, ...]] = {
    "categorical": ("min_count", "hash_buckets"),
    "numeric": ("bins", "max_bins"),
    "multi-valued": ("min_count", "hash_buckets", "separator"),
    "datetime": (),
    "ignored": (),
}


class Field(BaseModel):
    """One column of a table, and why it is of its kind.

    arrow_type, distinct, minimum, maximum and missing (share of the rows, 0 to 1) say what was found in the table
    that the schema was inferred from; distinct counts at most the first 100,000 rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Kind
    arrow_type: str
    reason: str
    bins: Literal["quantile", "uniform", "scaled"] | None = None
    max_bins: int | None = None
    min_count: int | None = None
    hash_buckets: int | None = None
    separator: str | None = None
    distinct: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    missing: float = 0.0
