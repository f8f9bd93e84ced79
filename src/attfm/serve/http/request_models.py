"""What requests may hold, generated from a schema: each field's type, in words and as pydantic checks it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired, cast

from pyarrow import types
from pydantic import ConfigDict, FailFast, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from attfm.data.arrow_types import is_list, is_text
from attfm.data.schema import Column
from attfm.serve.http.refusals import Problem, Refused, invalid

Row = dict[str, Any]
MOST_EXPLAINED = 100  # rows of one request
MOST_CANDIDATES = 10_000
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class FieldType:
    """What one column takes in JSON.

    type : for pydantic; said : in words, as "a number, or null where it is not known"
    """

    type: Any
    said: str

    @classmethod
    def of(cls, column: Column) -> "FieldType":
        """Return what a column takes: values of the type that it had in training, and null."""
        stored = column.stored_type
        scalar: Any = str | int | float | bool
        if column.kind == "multi-valued":
            if types.is_map(stored):
                return cls(dict[str, float] | None, "an object of members and their weights, or null")
            members = "a list of texts or numbers, or null"
            if is_list(stored):
                return cls(list[scalar | None] | None, members)
            return cls(str | list[scalar | None] | None, f"text with '{column.separator}' between members, {members}")
        if column.kind == "datetime":
            zone = getattr(stored, "tz", None)
            clock = "" if zone is None else f", with its offset (without one it is the time in {zone})"
            return cls(str | None, f"a date in ISO 8601, as 2024-03-01 or 2024-03-01T12:30:00{clock}, or null")
        if column.kind == "numeric":
            if is_text(stored):
                return cls(float | str | None, "a number, text that holds one, or null")
            if types.is_boolean(stored):
                return cls(float | bool | None, "a number, true, false, or null")
            return cls(float | None, "a number, or null where it is not known")
        if is_text(stored):
            return cls(str | None, "text, or null where it is not known")
        if types.is_boolean(stored):
            return cls(bool | int | str | None, "true, false, or null where it is not known")
        return cls(scalar | None, "a number or text, or null where it is not known")


@dataclass(frozen=True)
class RequestModels:
    """The bodies that a model's service takes.

    Attributes
    ----------
    takes : what each field takes, in words
    predict, explain, what_if, rank, page : adapters of the bodies; the last one of what the page itself asks
    """

    takes: Mapping[str, str]
    predict: TypeAdapter[Any]
    explain: TypeAdapter[Any]
    what_if: TypeAdapter[Any]
    rank: TypeAdapter[Any]
    page: TypeAdapter[Any]

    @classmethod
    def of(cls, columns: Sequence[Column], examples: Mapping[str, Any], *, rows: int) -> "RequestModels":
        """Return those of a schema's input columns.

        Parameters
        ----------
        examples : by column, a usual value
        rows : int, most rows of a request
        """
        fields, takes = dict[str, Any](), dict[str, str]()
        for column in columns:
            kind = FieldType.of(column)
            takes[column.name] = kind.said
            about = Field(description=_described(column, kind), examples=[examples[column.name]])
            fields[column.name] = Annotated[kind.type, about]
        row = _object("Row", fields)
        part = _object("Fields", fields, total=False)

        def of_rows(name: str, most: int, **more: Any) -> TypeAdapter[Any]:
            many = Annotated[list[row], FailFast(), Field(min_length=1, max_length=most)]  # type: ignore[valid-type]
            return TypeAdapter(_object(name, {"row": row, "rows": many, **more}, total=False))

        top = Annotated[int, Field(ge=1, le=100_000, description="how many, the largest first")]
        names = Annotated[list[str], Field(max_length=100_000, description="columns to leave as they are")]
        candidates = Annotated[list[part], FailFast(), Field(min_length=1, max_length=MOST_CANDIDATES)]  # type: ignore[valid-type]
        return cls(
            takes,
            of_rows("Predict", rows),
            of_rows("Explain", min(rows, MOST_EXPLAINED), top=top),
            TypeAdapter(_object("WhatIf", {"row": row, "immutable": names, "threshold": float}, needed=("row",))),
            TypeAdapter(
                _object("Rank", {"context": part, "candidates": candidates, "top": top, "of": str}, needed=("context",))
            ),
            TypeAdapter(_object("Page", {"row": row, "output": str, "threshold": float}, needed=("row",))),
        )

    def read(self, adapter: TypeAdapter[Any], body: bytes) -> dict[str, Any]:
        """Return a body as Python has it; raise Refused where it is not what the adapter takes."""
        try:
            return cast(dict[str, Any], adapter.validate_json(body))
        except ValidationError as error:
            raise invalid(error, self.takes) from None

    def read_rows(self, adapter: TypeAdapter[Any], body: bytes) -> tuple[dict[str, Any], list[Row], bool]:
        """Return a body, its rows, and whether it is of one row."""
        content = self.read(adapter, body)
        if ("row" in content) == ("rows" in content):
            raise Refused(422, "Send either 'row', an object of fields, or 'rows', a list of such objects.")
        return content, content.get("rows") or [content["row"]], "row" in content

    def checked_parts(self, context: Row, candidates: Sequence[Row] | None, columns: Sequence[str]) -> None:
        """Raise Refused unless each field stands either in the context or in every candidate.

        columns : what the service's own items have, which are ranked where there are no candidates
        """
        own = set(columns if candidates is None else candidates[0])
        problems = [
            Problem(f"Field '{name:.60}' stands in the context and in candidates: send it in one of them.", name)
            for name in context if name in own
        ]  # fmt: skip
        problems += [
            Problem(f"Field '{name:.60}' is lacking: send {said}, in the context or in every candidate.", name)
            for name, said in self.takes.items() if name not in own and name not in context
        ]  # fmt: skip
        for number, candidate in enumerate(candidates or ()):
            if set(candidate) != own:
                name = min(own ^ set(candidate))
                problems.append(
                    Problem(
                        f"Candidate {number} has other fields than the first ('{name:.60}'): send the same in each.",
                        name,
                        number,
                    )
                )
                break
        if problems:
            raise Refused(422, " ".join(problem.message for problem in problems[:20]), problems[:20])


def _object(name: str, fields: dict[str, Any], *, total: bool = True, needed: Sequence[str] = ()) -> Any:
    """Return a type of dictionaries with these keys and no others; total : all are needed, else those `needed`."""
    if needed:
        fields = {key: kind if key in needed else NotRequired[kind] for key, kind in fields.items()}
    kind = TypedDict(name, fields, total=total or bool(needed))  # type: ignore[misc]
    return with_config(_STRICT)(kind)


def _described(column: Column, kind: FieldType) -> str:
    spread = f" In training: {column.spread}." if column.spread else ""
    missing = f" {100 * column.missing:.3g} % had no value." if column.missing else ""
    return f"{column.kind}: {kind.said}.{spread}{missing}"
