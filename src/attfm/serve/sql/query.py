"""A model as one query of standard SQL over the raw columns, for databases that know nothing of attfm."""

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyarrow import types

from attfm.data.codecs.codec import FIRST_VALUE, MISSING, UNKNOWN, Field
from attfm.errors import ConfigError
from attfm.model.bundle import Model, model_given
from attfm.model.calibration import Curve
from attfm.output_file import OutputFile
from attfm.serve.onnx.columns import missing_texts, null_numbers, thresholds_of
from attfm.serve.raw_inputs import RawInput, raw_inputs
from attfm.serve.sql.tables import NO_FEATURE, TermTable, check_fits, term_table

_QUERY_FILE = OutputFile("query", "a text of SQL", (".sql",))
LIMIT = 300_000  # numbers in the query's tables
_MOST_ROWS = 20_000
_STEEPEST = "700e0"  # whose exponential a double still holds


def export_sql(
    model: Model, path: str | Path, *, table: str = "data", ids: Sequence[str] = (), limit: int = LIMIT
) -> Path:
    """Write the query of `sql_query` and return its path; a failed write leaves nothing behind."""
    file = _QUERY_FILE.checked(path)
    text = sql_query(model, table=table, ids=ids, limit=limit)
    with _QUERY_FILE.written(file) as part:
        part.write_text(text, encoding="utf-8")
    return file


def sql_query(model: Model, *, table: str = "data", ids: Sequence[str] = (), limit: int = LIMIT) -> str:
    """Return a query that gives the scores of a table's rows: beside the columns `ids`, or beside the inputs.

    The exponentials of attention logits are of pairs of values, so they are numbers in the query: it adds up, divides
    once, and needs EXP only for the probability.

    Parameters
    ----------
    table : str, the table to be read, with its schema before a point
    ids : sequence of str, names of columns of it, which need be no inputs
    limit : int, most numbers that the query's tables may have

    Raises
    ------
    ConfigError
        The table has no name, an option is of another type, a column can't be read by standard SQL, or the tables are
        larger: the message has the sizes.
    """
    model = model_given(model)
    if not isinstance(table, str) or "\0" in table or not all(table.split(".")):
        raise ConfigError(f"The table {table!r:.60} has no name: give the table that the query is to read (--table).")
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise ConfigError(f"ids is {ids!r:.60}: give a list of names of columns, such as ['id'].")
    ids = [str(name) for name in ids]
    if isinstance(limit, bool) or not isinstance(limit, int | np.integer) or limit < 1:
        raise ConfigError(f"limit is {limit!r:.60}: give a number of numbers, at least 1.")
    inputs = raw_inputs(model)
    obstacles = [obstacle for raw in inputs if (obstacle := _obstacle(model, raw))]
    if obstacles:
        raise ConfigError(" ".join(obstacles))
    names = list(ids) or [raw.name for raw in inputs]
    scores = _score_columns(model)
    clashing = sorted({name for name in names if names.count(name) > 1 or name.lower() in scores})
    if clashing:
        raise ConfigError(
            f"The query would give two columns '{clashing[0]}': name other columns to stand beside the scores (--id)."
        )
    check_fits(model, limit)
    terms = term_table(model)
    return _text(model, inputs, terms, table, [_name(name) for name in names], scores)


def _obstacle(model: Model, raw: RawInput) -> str | None:
    """Return the sentence that says why a query can't read a column; None where it can."""
    field = next(field for field in model.encoder.fields if field.column == raw.name)
    why = None
    if raw.column.hash_buckets is not None:
        why = "is hashed, and SQL has no such hash"
    elif raw.column.kind == "multi-valued":
        why = "has several values a row, which databases hold in ways of their own"
    elif types.is_temporal(raw.terms.stored) or raw.column.kind == "datetime":
        why = "holds dates or times, for which databases have functions of their own"
    elif field.kind == "scaled":
        why = "is scaled, so its numbers have no table: train it with bins"
    elif "\0" in raw.name or any("\0" in label for label in raw.codec.labels()):
        why = "has a value or a name with a zero byte"
    return None if why is None else f"Column '{raw.name}' {why}: leave it out of training, or export to ONNX."


def _score_columns(model: Model) -> dict[str, str]:
    """Return names of the columns of scores, and the expression of each, in terms of logit_0, logit_1, ..."""
    task = model.task
    if not task.is_classification:
        return {"prediction": "logit_0"}
    shares = [_share(model, c) for c in range(len(task.outputs))]
    names = [_text_literal(name) for name in task.class_names]
    if len(task.classes) == 2:
        decided = f"CASE WHEN probability_0 > {_exact(model.threshold)} THEN {names[1]} ELSE {names[0]} END"
        return {"prediction": decided, "probability": "probability_0", "logit": "logit_0", "": shares[0]}
    by = "probability" if model.calibration.curves else "logit"
    cases = " ".join(
        "WHEN " + " AND ".join(f"{by}_{c} >= {by}_{d}" for d in range(len(names)) if d != c) + f" THEN {name}"
        for c, name in enumerate(names)
    )
    columns = {"prediction": f"CASE {cases} END"}
    columns |= {f"probability_{name}": f"probability_{c}" for c, name in enumerate(task.class_names)}
    columns |= {f"logit_{name}": f"logit_{c}" for c, name in enumerate(task.class_names)}
    return columns | {"": ", ".join(f"{share} AS probability_{c}" for c, share in enumerate(shares))}


def _share(model: Model, c: int) -> str:
    """Return the probability of an output's class, before several are normalised."""
    curves, classes = model.calibration.curves, len(model.task.outputs)
    if classes == 1:
        return _curve(curves[0], "logit_0") if curves else _over_one([f"-(logit_{c})"])
    others = [f"logit_{d} - logit_{c}" for d in range(classes) if d != c]
    if curves:
        return _curve(curves[c], f"-LN({' + '.join(_exp(other) for other in others)})")
    return _over_one(others)


def _over_one(differences: Sequence[str]) -> str:
    return f"1e0 / (1e0 + {' + '.join(_exp(difference) for difference in differences)})"


def _exp(x: str) -> str:
    return f"EXP(CASE WHEN {x} < {_STEEPEST} THEN {x} ELSE {_STEEPEST} END)"


def _curve(curve: Curve, x: str) -> str:
    """Return a rising curve, straight between its points and level outside."""
    xs, ys = np.array(curve.logits), np.array(curve.probabilities)
    pieces = [f"WHEN {x} <= {_exact(xs[0])} THEN {_exact(ys[0])}"]
    for piece, slope in enumerate(np.diff(ys) / np.diff(xs)):
        line = f"{_exact(ys[piece])} + ({x} - {_exact(xs[piece])}) * {_exact(slope)}"
        pieces.append(f"WHEN {x} < {_exact(xs[piece + 1])} THEN {line}")
    return f"CASE {' '.join(pieces)} ELSE {_exact(ys[-1])} END"


def _text(
    model: Model, inputs: Sequence[RawInput], terms: TermTable, table: str, ids: Sequence[str], scores: dict[str, str]
) -> str:
    fields, outputs = model.encoder.fields, len(model.task.outputs)
    encoded = [
        f"{_feature(raw, field)} AS attfm_{f}" for f, (raw, field) in enumerate(zip(inputs, fields, strict=True))
    ]
    slots = [f"({f}, {NO_FEATURE})" for f in range(len(fields))]
    if model.module.has_pairs:
        slots += [f"({i}, {j})" for i in range(len(fields)) for j in range(i + 1, len(fields))]
    chosen = [f"WHEN {f} THEN attfm_{f}" for f in range(len(fields))]
    columns = ["a", "b", *(f"fixed_{o}" for o in range(outputs))]
    for m in range(terms.attentive):
        columns += [f"share_{m}", *(f"weighted_{m}_{o}" for o in range(outputs))]
    numbers = np.column_stack([terms.fixed, *(
        np.column_stack([terms.share[:, m], terms.weighted[:, m]]) for m in range(terms.attentive)
    )])  # fmt: skip
    rows = [
        f"({a}, {b}, {', '.join(_short(x) for x in row)})"
        for a, b, row in zip(terms.first.tolist(), terms.second.tolist(), numbers.tolist(), strict=True)
    ]
    logits = [
        " + ".join(
            [_exact(terms.base[o]), f"SUM(fixed_{o})"]
            + [f"SUM(weighted_{m}_{o}) / SUM(share_{m})" for m in range(terms.attentive)]
        )
        for o in range(outputs)
    ]
    kept = ", ".join(f"id_{n}" for n in range(len(ids)))
    summed = ", ".join(f"{logit} AS logit_{o}" for o, logit in enumerate(logits))
    given = [f"id_{n} AS {name}" for n, name in enumerate(ids)]
    shares = scores.get("")
    inner, result = "attfm_logits", {name: own for name, own in scores.items() if name}
    withs = [
        *_values("attfm_terms", columns, rows),
        f"attfm_slots (i, j) AS (VALUES {', '.join(slots)})",
        "attfm_encoded AS (SELECT ROW_NUMBER() OVER () AS attfm_row,\n"
        + ",\n".join([f"{name} AS id_{n}" for n, name in enumerate(ids)] + encoded)
        + f"\nFROM {'.'.join(_name(part) for part in table.split('.'))})",
        f"attfm_pairs AS (SELECT attfm_row, {kept},\nCASE i {' '.join(chosen)} END AS first_feature,\n"
        f"CASE j WHEN {NO_FEATURE} THEN {NO_FEATURE} {' '.join(chosen)} END AS second_feature\n"
        "FROM attfm_encoded CROSS JOIN attfm_slots)",
        f"attfm_logits AS (SELECT attfm_row, {kept},\n{summed}\nFROM attfm_pairs JOIN attfm_terms "
        f"ON a = first_feature AND b = second_feature\nGROUP BY attfm_row, {kept})",
    ]
    if shares is not None:
        own = shares if outputs > 1 else f"{shares} AS probability_0"
        withs.append(f"attfm_shares AS (SELECT attfm_logits.*, {own}\nFROM attfm_logits)")
        inner = "attfm_shares"
        if model.calibration.curves and outputs > 1:
            total = " + ".join(f"probability_{c}" for c in range(outputs))
            result = {
                name: f"{expression} / ({total})" if name.startswith("probability_") else expression
                for name, expression in result.items()
            }
    selected = given + [f"{expression} AS {_name(name)}" for name, expression in result.items()]
    header = f"-- attfm {version('attfm')}, {model.task.name}: a row of scores for each row; NULL is missing.\n"
    tables = ",\n".join(withs)
    return f"{header}WITH {tables}\nSELECT {', '.join(selected)}\nFROM {inner}\nORDER BY attfm_row\n"


def _values(name: str, columns: Sequence[str], rows: Sequence[str]) -> list[str]:
    """Return the common table expressions of a table of constants."""
    # SQLite takes 32,768 rows and more for a table of hardly any (16 bits), and searches it without an index.
    parts = [rows[start : start + _MOST_ROWS] for start in range(0, len(rows), _MOST_ROWS)]
    names = [name] if len(parts) == 1 else [f"{name}_{number}" for number in range(len(parts))]
    told = ", ".join(columns)
    values = [f"{own} ({told}) AS (VALUES\n" + ",\n".join(part) + ")" for own, part in zip(names, parts, strict=True)]
    if len(parts) == 1:
        return values
    return [*values, f"{name} AS (" + " UNION ALL ".join(f"SELECT {told} FROM {own}" for own in names) + ")"]


def _feature(raw: RawInput, field: Field) -> str:
    """Return the feature of a column's value as an expression."""
    column, unknown, missing = _name(raw.name), field.start + UNKNOWN, field.start + MISSING
    if types.is_boolean(raw.terms.stored) and raw.column.kind == "categorical":
        known = {label: field.start + FIRST_VALUE + n for n, label in enumerate(raw.codec.labels())}
        truth, lie = known.get("true", unknown), known.get("false", unknown)
        return f"CASE WHEN {column} THEN {truth} WHEN NOT {column} THEN {lie} ELSE {missing} END"
    if raw.form == "text":
        trimmed = f"TRIM({column})"
        words = ", ".join(_text_literal(text) for text in missing_texts(raw))
        absent = f"{column} IS NULL OR {trimmed} IN ({words})"
        keys = [_text_literal(label) for label in raw.codec.labels()]
        return f"CASE WHEN {absent} THEN {missing} ELSE {_choice(trimmed, keys, field, unknown)} END"
    number = column if raw.form == "whole" else f"CAST({column} AS DOUBLE PRECISION)"
    absent = f"{column} IS NULL"
    if markers := null_numbers(raw):
        absent += f" OR {number} IN ({', '.join(_exact(x) for x in markers)})"
    if field.kind == "numeric":
        found = str(unknown)
        if field.size > FIRST_VALUE:
            found = _bin(number, thresholds_of(raw, field), 0, field.size - FIRST_VALUE - 1, field.start + FIRST_VALUE)
        return f"CASE WHEN {absent} THEN {missing} ELSE {found} END"
    short = types.is_float32(raw.terms.stored)
    keys = [
        label if raw.form == "whole" else _exact(float(np.float32(label)) if short else float(label))
        for label in raw.codec.labels()
    ]
    return f"CASE WHEN {absent} THEN {missing} ELSE {_choice(number, keys, field, unknown)} END"


def _choice(value: str, keys: Sequence[str], field: Field, unknown: int) -> str:
    if not keys:
        return str(unknown)
    cases = " ".join(f"WHEN {key} THEN {field.start + FIRST_VALUE + n}" for n, key in enumerate(keys))
    return f"CASE {value} {cases} ELSE {unknown} END"


def _bin(x: str, thresholds: NDArray[np.float64], low: int, high: int, first: int) -> str:
    """Return the feature of a number's bin, from bin `low` to bin `high`, by halves."""
    if low == high:
        return str(first + low)
    middle = (low + high + 1) // 2
    less, more = _bin(x, thresholds, low, middle - 1, first), _bin(x, thresholds, middle, high, first)
    return f"CASE WHEN {x} < {_exact(thresholds[middle - 1])} THEN {less} ELSE {more} END"


def _name(name: str) -> str:
    """Return a name as SQL quotes it."""
    return '"' + name.replace('"', '""') + '"'


def _text_literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _exact(x: float) -> str:
    """Return a double with all its digits, as SQL writes one that is no decimal."""
    digits = repr(float(x))
    return digits if "e" in digits else f"{digits}e0"


def _short(x: float) -> str:
    """Return a double with ten digits."""
    return "0e0" if x == 0 else f"{x:.9e}"
