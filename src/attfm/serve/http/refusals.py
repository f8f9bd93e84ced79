"""What a service answers instead of a result: a status, a sentence, and what is wrong with which field."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import ErrorDetails, ValidationError

from attfm.errors import near_names
from attfm.serve.http.answers import Answer, json_answer

MOST_PROBLEMS = 20


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a request.

    field : name of the field, as it was sent; row : number of the row, from 0; both None where it is of the whole
    message : a sentence or two
    """

    message: str
    field: str | None = None
    row: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"field": self.field, "row": self.row, "message": self.message}


class Refused(Exception):
    """A request is not answered.

    status : of HTTP; detail : a sentence; problems : what is wrong with which field
    headers : of the answer; closes : whether the connection ends with it
    """

    def __init__(
        self, status: int, detail: str, problems: Sequence[Problem] = (), *, headers: Mapping[str, str] | None = None,
        closes: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.problems = tuple(problems)
        self.headers = dict(headers or {})
        if closes:
            self.headers["connection"] = "close"

    @property
    def answer(self) -> Answer:
        """What is sent."""
        body = {"detail": self.detail, "problems": [problem.to_dict() for problem in self.problems]}
        return json_answer(body, status=self.status, headers=self.headers)


def check_json(media_type: bytes, encoding: bytes) -> None:
    """Raise Refused where a body is said to be something else than JSON, or compressed.

    media_type, encoding : the headers Content-Type and Content-Encoding
    """
    if media_type != b"application/json" and media_type.partition(b";")[0].strip().lower() != b"application/json":
        raise Refused(415, "The body is not said to be JSON: send the header 'Content-Type: application/json'.")
    if encoding and encoding.strip().lower() != b"identity":
        said = encoding.decode("latin-1")[:60]
        raise Refused(415, f"The body is said to be encoded ('{said}'): send plain JSON, without 'Content-Encoding'.")


def no_path(path: str, known: Iterable[str]) -> Refused:
    """Return the refusal of a path that there is not."""
    near = "".join(f" (did you mean '{other}'?)" for other in near_names(path[:200], known))
    return Refused(404, f"There is no path '{path:.60}'{near}: see /docs for what there is.")


def wrong_method(method: str, path: str, allowed: str) -> Refused:
    """Return the refusal of a path that is asked by another method than it takes; allowed : as the header has it."""
    said = f"'{path:.60}' is asked by {allowed}, not by {method:.20}: see /docs for how."
    return Refused(405, said, headers={"allow": allowed})


def busy(what: str) -> Refused:
    """Return the refusal of a request that finds the queue full."""
    return Refused(503, f"The service is busy: {what}. Ask again in a second.", headers={"retry-after": "1"})


def invalid(error: ValidationError, takes: Mapping[str, str]) -> Refused:
    """Return the refusal of a body that is not what was asked for.

    takes : by field, what it takes, in words
    """
    problems = dict[tuple[Any, ...], Problem]()
    status, more = 422, 0
    for found in error.errors(include_url=False):
        if found["type"] == "json_invalid":
            reason = found.get("ctx", {}).get("error", "it can't be read")
            return Refused(400, f"The body is not JSON: {reason}. Send an object in UTF-8.")
        if found["type"] == "too_long":
            status = 413
        if len(problems) == MOST_PROBLEMS:  # each costs a search for the name that was meant
            more += 1
            continue
        problem = _problem(found, takes)
        problems.setdefault((problem.field, problem.row), problem)
    told = list(problems.values())
    rest = f" And {more:,} more." if more else ""
    return Refused(status, " ".join(problem.message for problem in told) + rest, told)


def _problem(found: ErrorDetails, takes: Mapping[str, str]) -> Problem:
    place = list(found["loc"])
    outer = place.pop(0) if place else None
    row = place.pop(0) if place and isinstance(place[0], int) else None
    where = "" if row is None else f" of row {row}"
    number = row if isinstance(row, int) else None
    kind, value = found["type"], found["input"]
    if outer in ("row", "rows", "context", "candidates") and place:
        name = str(place[0])
        shown = f"'{name:.60}'"
        if kind == "missing":
            return Problem(f"Field {shown}{where} is lacking: send {takes.get(name, 'a value')}.", name, number)
        if kind == "extra_forbidden":
            near = "".join(f" (did you mean '{other}'?)" for other in near_names(name[:200], takes))
            return Problem(
                f"There is no field {shown}{near}: {'rename it, or ' if near else ''}leave it out.", name[:200], number
            )
        return Problem(f"Field {shown}{where} is {_shown(value)}: send {takes.get(name, 'a value')}.", name, number)
    named = None if outer is None else str(outer)[:200]
    if kind == "extra_forbidden":
        return Problem(f"The body has no place for '{named:.60}': see /docs for what it takes.", named)
    if kind == "missing":
        return Problem(f"The body lacks '{named}': see /docs for what it takes.", named)
    if kind == "too_long":
        context = found.get("ctx", {})
        sent = context.get("actual_length") or "more"
        most = context.get("max_length")
        said = f"'{named}' has {sent} items, more than the {most} that are taken at once: send several requests."
        return Problem(said, named)
    if kind == "too_short":
        return Problem(f"'{named}' is empty: send at least one.", named)
    if named is None:
        return Problem(f"The body is {_shown(value)}: send a JSON object, see /docs.")
    place_in_list = "" if row is None else f", number {row},"
    return Problem(f"'{named}'{place_in_list} is {_shown(value)}: {_expected(found)}.", named, number)


def _expected(found: ErrorDetails) -> str:
    """Return what pydantic asks for, as a request: "Input should be a valid number" is "send a valid number"."""
    message = found["msg"]
    if not message.startswith("Input should be "):
        return message
    what = message.removeprefix("Input should be ")
    return f"send a number {what}" if what.startswith(("greater ", "less ")) else f"send {what}"


def _shown(value: object) -> str:
    """Return a value, cut short, as JSON has it or nearly so."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = f"'{value}'" if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
