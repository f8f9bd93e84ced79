"""Raw columns to feature ids as ONNX nodes: what the codecs do, with the operators that there are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import types

from attfm.data.bad_values import BadValues
from attfm.data.codecs.codec import FIRST_VALUE, MISSING, UNKNOWN, Field
from attfm.data.texts import DAY_SECONDS, PLAIN, markers, parse_numbers
from attfm.errors import ConfigError
from attfm.serve.onnx.nodes import ML, Nodes
from attfm.serve.raw_inputs import NO_WHOLE_NUMBER, RawInput

PAD = -1  # the id of a member that is not there
_TRUE = ("true", "1", "1.0")
_FALSE = ("false", "0", "0.0")


@dataclass(frozen=True)
class FieldIds:
    """The features of one field: names of values.

    ids : int64 (batch,), or (batch, members) with `PAD` where a row has no more
    x : float (batch,) or (batch, members), what multiplies each; None: 1
    """

    field: Field
    ids: str
    x: str | None = None
    has_members: bool = False


def encode(nodes: Nodes, taken: Sequence[RawInput], fields: Sequence[Field]) -> list[FieldIds]:
    """Return the features of all fields, from inputs that are declared here.

    Raises
    ------
    ConfigError : columns can't be expressed: all are named, and why
    """
    by_column: dict[str, list[Field]] = {}
    for field in fields:
        by_column.setdefault(field.column, []).append(field)
    obstacles = [obstacle for raw in taken if (obstacle := obstacle_of(raw))]
    if obstacles:
        raise ConfigError(" ".join(obstacles))
    for raw in taken:
        nodes.input(raw.name, raw.dtype, ["batch", f"members of {raw.name}"] if raw.has_members else ["batch"])
        if raw.form == "weighted":
            nodes.input(raw.weights_name, "float", ["batch", f"members of {raw.name}"])
    binned = [raw for raw in taken if by_column[raw.name][0].kind == "numeric"]
    encoded = dict(zip([raw.name for raw in binned], _bins(nodes, binned, by_column), strict=True))
    for raw in taken:
        if raw.name not in encoded:
            encoded[raw.name] = _encoder_of(raw, by_column[raw.name])(nodes, raw, by_column[raw.name])
    return [of_field for raw in taken for of_field in encoded[raw.name]]


def obstacle_of(raw: RawInput) -> str | None:
    """Return the sentence that says why a column can't be expressed, and what to do; None where it can."""
    if raw.column.hash_buckets is not None:
        return (
            f"Column '{raw.name}' is hashed into {raw.column.hash_buckets:,} buckets, and ONNX has no operation on the "
            "bytes of a text: train with its 'min_count' in place of 'hash_buckets', or export with --ids."
        )
    if not raw.name:
        return "A column has no name, and an input of an ONNX model needs one: name it, and train again."
    if raw.form == "whole":
        others = [value for value in raw.codec.labels() if not _is_int64(value)]
        if others:
            return (
                f"Column '{raw.name}' holds whole numbers, and the value '{others[0]}', which a 64-bit integer can't "
                "hold: train with the column as text, or export with --ids."
            )
    return None


def _encoder_of(raw: RawInput, fields: Sequence[Field]) -> Callable[..., list[FieldIds]]:
    if fields[0].kind == "scaled":
        return _scaled
    return {
        "seconds": _calendar, "whole": _whole, "number": _numbers, "text": _texts, "texts": _members,
        "weighted": _members, "joined": _joined,
    }[raw.form]  # fmt: skip


def _bins(nodes: Nodes, binned: Sequence[RawInput], fields: dict[str, list[Field]]) -> list[list[FieldIds]]:
    """Return the features of columns of bins, found by one tree a column."""
    if not binned:
        return []
    own = [fields[raw.name][0] for raw in binned]
    x = nodes.concat([nodes.column(raw.name) for raw in binned], 1)
    trees = [thresholds_of(raw, field) for raw, field in zip(binned, own, strict=True)]
    bins = nodes.cast(nodes.add("TreeEnsembleRegressor", x, domain=ML, **_as_trees(nodes, trees)), "int64")
    has_bins = np.array([field.size > FIRST_VALUE for field in own])
    first = np.array([field.start for field in own]) + np.where(has_bins, FIRST_VALUE, UNKNOWN)
    ids = nodes.add("Add", bins, nodes.constant(first, np.int64))
    missing = nodes.constant([field.start + MISSING for field in own], np.int64)
    ids = nodes.add("Where", _missing_number(nodes, binned[0], x), missing, ids)
    return [[FieldIds(field, nodes.pick(ids, place, 1))] for place, field in enumerate(own)]


def _missing_number(nodes: Nodes, raw: RawInput, x: str) -> str:
    """Return where numbers are missing: NaN, or a number that means missing in this schema."""
    missing = nodes.add("IsNaN", x)
    for number in null_numbers(raw):
        missing = nodes.add("Or", missing, nodes.add("Equal", x, nodes.constant(number, np.float64)))
    return missing


def null_numbers(raw: RawInput) -> list[float]:
    """Return the numbers that mean missing in the tables of this schema, such as -999."""
    numbers, _ = parse_numbers(pa.array(raw.terms.reading.null_values, pa.large_string()))
    return [float(number) for number in np.unique(numbers[~np.isnan(numbers)])]


def missing_texts(raw: RawInput) -> list[str]:
    """Return the texts that mean missing in a column, the empty one first."""
    return list(dict.fromkeys(["", *(m for m in markers(raw.terms.reading) if m not in raw.terms.kept)]))


def thresholds_of(raw: RawInput, field: Field) -> NDArray[np.float64]:
    """Return the least number of each bin but the first, as the codec sees float64 numbers.

    A column of float32 rounds what it is given first, so the least number that reaches a bin is less than its edge.
    """
    if field.size <= FIRST_VALUE + 1:
        return np.empty(0)
    outer = raw.codec.edges()
    assert outer is not None
    edges = outer[1:-1]
    terms = replace(raw.terms, reading=PLAIN)
    goals = np.arange(1, len(edges) + 1) + FIRST_VALUE

    def reached(x: NDArray[np.float64]) -> NDArray[np.bool_]:
        bad = BadValues()
        return np.asarray(raw.codec.encode(terms.apply(pa.array(x), bad), row=0, bad=bad)[0].ids >= goals)

    if reached(edges).all() and not reached(np.nextafter(edges, -np.inf)).any():
        return edges
    # Else by bisection among the float64 numbers: as integers they are in their order.
    width = np.maximum(np.abs(edges) * 2.0**-9, np.float64(1e-7))
    under, over = _ordinals(edges - width), _ordinals(edges + width)
    while (over - under > 1).any():
        middle = under + (over - under) // 2
        reach = reached(_of_ordinals(middle))
        under, over = np.where(reach, under, middle), np.where(reach, middle, over)
    return _of_ordinals(over)


def _ordinals(x: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return int64 numbers that have the order of the float64 numbers, without a gap."""
    bits = x.view(np.int64)
    return np.where(bits < 0, np.int64(-(2**63)) - bits, bits)


def _of_ordinals(ordinals: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the numbers of `_ordinals`."""
    return np.where(ordinals < 0, np.int64(-(2**63)) - ordinals, ordinals).view(np.float64)


def _as_trees(nodes: Nodes, trees: Sequence[NDArray[np.float64]]) -> dict[str, Any]:
    """Return the attributes of balanced trees: tree t finds how many of its thresholds are at most x[t]."""
    columns: dict[str, list[Any]] = {
        name: [] for name in ("treeids", "nodeids", "featureids", "modes", "truenodeids", "falsenodeids", "values")
    }
    leaves: dict[str, list[Any]] = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}
    for tree, thresholds in enumerate(trees):
        # Without a threshold both leaves say 0: the operator wants a branch.
        cuts = thresholds if len(thresholds) else np.array([np.inf])
        last = len(thresholds)
        pending, count = [(0, 0, len(cuts))], 1  # node, and the bins from the first to the last of it
        while pending:
            node, low, high = pending.pop()
            is_leaf = low == high
            middle = (low + high) // 2
            more, less = (0, 0) if is_leaf else (count, count + 1)
            row = (tree, node, tree, "LEAF" if is_leaf else "BRANCH_GTE", more, less, 0.0 if is_leaf else cuts[middle])
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
            if is_leaf:
                for column, value in zip(leaves.values(), (tree, node, tree, float(min(low, last))), strict=True):
                    column.append(value)
            else:
                pending += [(more, middle + 1, high), (less, low, middle)]
                count += 2
    values = nodes.tensor(np.array(columns.pop("values"), np.float64))
    weights = nodes.tensor(np.array(leaves.pop("weights"), np.float64))
    return {
        **{f"nodes_{name}": column for name, column in columns.items()}, "nodes_values_as_tensor": values,
        **{f"target_{name}": column for name, column in leaves.items()}, "target_weights_as_tensor": weights,
        "n_targets": len(trees), "aggregate_function": "SUM", "post_transform": "NONE",
    }  # fmt: skip


def _scaled(nodes: Nodes, raw: RawInput, fields: Sequence[Field]) -> list[FieldIds]:
    (field,) = fields
    x = raw.name
    if types.is_float32(raw.terms.stored) or types.is_float16(raw.terms.stored):
        x = nodes.cast(nodes.cast(x, "float"), "double")
    missing = _missing_number(nodes, raw, raw.name)
    ids = nodes.add(
        "Where", missing, nodes.constant(field.start + MISSING, np.int64),
        nodes.constant(field.start + FIRST_VALUE, np.int64),
    )  # fmt: skip
    bounds = raw.codec.rows()
    low, high = (float(bounds[name][0].as_py()) for name in ("lower", "upper")) if bounds else (0.0, 0.0)
    if low < high:
        shifted = nodes.add("Sub", x, nodes.constant(low, np.float64))
        x = nodes.add("Div", shifted, nodes.constant(high - low, np.float64))
        x = nodes.add("Where", missing, nodes.constant(1.0, np.float64), x)
        return [FieldIds(field, ids, nodes.cast(x, "float"))]
    return [FieldIds(field, ids, nodes.cast(missing, "float"))]  # constant, or without a value in training


def _whole(nodes: Nodes, raw: RawInput, fields: Sequence[Field]) -> list[FieldIds]:
    """Return the features of whole numbers; those that mean missing, and none of the values, are missing."""
    (field,) = fields
    values = np.array([int(value) for value in raw.codec.labels()], np.int64)
    missing = np.array([NO_WHOLE_NUMBER, *(int(n) for n in null_numbers(raw) if n == int(n))], np.int64)
    keys, found = _with_missing(values, missing)
    return [FieldIds(field, nodes.lookup(raw.name, keys, found + field.start, field.start + UNKNOWN))]


def _numbers(nodes: Nodes, raw: RawInput, fields: Sequence[Field]) -> list[FieldIds]:
    """Return the features of numbers that are categories, as the column's type holds them."""
    (field,) = fields
    short = types.is_float32(raw.terms.stored)
    known = [np.float64(np.float32(value) if short else value) for value in raw.codec.labels() if _is_number(value)]
    places = np.array([n for n, value in enumerate(raw.codec.labels()) if _is_number(value)], np.int64)
    x = nodes.add("Add", raw.name, nodes.constant(0.0, np.float64))  # there is one zero
    if short:
        x = nodes.cast(nodes.cast(x, "float"), "double")
    found = nodes.lookup(x, np.array(known, np.float64), places + field.start + FIRST_VALUE, field.start + UNKNOWN)
    missing = _missing_number(nodes, raw, raw.name)
    ids = nodes.add("Where", missing, nodes.constant(field.start + MISSING, np.int64), found)
    return [FieldIds(field, ids)]


def _texts(nodes: Nodes, raw: RawInput, fields: Sequence[Field]) -> list[FieldIds]:
    (field,) = fields
    values = _objects(raw.codec.labels())
    missing = _objects(missing_texts(raw))
    keys, found = _with_missing(values, missing)
    if types.is_boolean(raw.terms.stored):
        keys, found = _with_truths(keys, found)
    return [FieldIds(field, nodes.lookup(nodes.trimmed(raw.name), keys, found + field.start, field.start + UNKNOWN))]


def _joined(nodes: Nodes, raw: RawInput, fields: Sequence[Field]) -> list[FieldIds]:
    """Return the features of texts that are members with a separator between them."""
    missing = np.array(missing_texts(raw), object)
    whole = nodes.trimmed(raw.name)
    is_missing = nodes.lookup(whole, missing, np.ones(len(missing), np.int64), 0)
    texts = nodes.add("Where", nodes.cast(is_missing, "bool"), nodes.constant(np.array("", object)), whole)
    members, _ = nodes.add_many("StringSplit", texts, outputs=2, delimiter=raw.column.separator)
    return _members(nodes, raw, fields, members)


def _members(nodes: Nodes, raw: RawInput, fields: Sequence[Field], members: str | None = None) -> list[FieldIds]:
    """Return the features of members, (batch, members) texts; those that are empty are not there."""
    (field,) = fields
    values = _objects(raw.codec.labels())
    keys, found = np.append(values, ""), np.append(field.start + FIRST_VALUE + np.arange(len(values)), PAD)
    ids = nodes.lookup(nodes.trimmed(members or raw.name), keys, found, field.start + UNKNOWN)
    there = nodes.add("Not", nodes.add("Equal", ids, nodes.constant(PAD, np.int64)))
    # A row without any member has the missing feature, in a last column of its own: there may be no other.
    empty = nodes.add("Equal", nodes.total(nodes.cast(there, "int64"), 1, keep=True), nodes.constant(0, np.int64))
    stands_in = nodes.add(
        "Where", empty, nodes.constant(field.start + MISSING, np.int64), nodes.constant(PAD, np.int64)
    )
    ids = nodes.concat([ids, stands_in], 1)
    if raw.form != "weighted":
        return [FieldIds(field, ids, None, has_members=True)]
    ones = nodes.cast(nodes.filled_like(stands_in, 1), "float")
    return [FieldIds(field, ids, nodes.concat([raw.weights_name, ones], 1), has_members=True)]


def _calendar(nodes: Nodes, raw: RawInput, fields: Sequence[Field]) -> list[FieldIds]:
    """Return hour, weekday and month of seconds since 1970, by whole numbers only."""

    def number(value: int) -> str:
        return nodes.constant(value, np.int64)

    def modulo(x: str, divisor: int) -> str:
        return nodes.add("Mod", x, number(divisor))

    def floor(x: str, divisor: int) -> str:
        return nodes.add("Div", nodes.add("Sub", x, modulo(x, divisor)), number(divisor))

    missing = nodes.add("Equal", raw.name, number(NO_WHOLE_NUMBER))
    seconds = nodes.add("Where", missing, number(0), raw.name)
    days = floor(seconds, DAY_SECONDS)

    def month() -> str:
        # Days of an era of 400 years that begins on 1 March: leap days come last (Hinnant, "chrono-compatible
        # low-level date algorithms", civil_from_days).
        of_era = modulo(nodes.add("Add", days, number(719_468)), 146_097)
        leaps = nodes.add("Sub", nodes.add("Add", of_era, floor(of_era, 36_524)), floor(of_era, 1_460))
        year = floor(nodes.add("Sub", leaps, floor(of_era, 146_096)), 365)
        before = nodes.add("Mul", year, number(365))
        before = nodes.add("Sub", nodes.add("Add", before, floor(year, 4)), floor(year, 100))
        of_year = nodes.add("Sub", of_era, before)
        from_march = floor(nodes.add("Add", nodes.add("Mul", of_year, number(5)), number(2)), 153)
        return modulo(nodes.add("Add", from_march, number(2)), 12)

    parts = {
        "hour": lambda: floor(modulo(seconds, DAY_SECONDS), 3_600),
        "weekday": lambda: modulo(nodes.add("Add", days, number(3)), 7),
        "month": month,
    }
    encoded = []
    for field in fields:
        part = nodes.add("Add", parts[field.name.rsplit(".", 1)[1]](), number(field.start + FIRST_VALUE))
        encoded.append(FieldIds(field, nodes.add("Where", missing, number(field.start + MISSING), part)))
    return encoded


def _with_missing(values: NDArray[Any], missing: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return known values and what means missing as keys, each once, and their features counted from the field's."""
    keys = {value: FIRST_VALUE + place for place, value in enumerate(values.tolist())}
    keys |= dict.fromkeys(missing.tolist(), MISSING)
    return np.array(list(keys), values.dtype), np.array(list(keys.values()), np.int64)


def _with_truths(keys: NDArray[Any], found: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the keys of a column of truths with all ways to write one."""
    known = dict(zip(keys.tolist(), found.tolist(), strict=True))
    for words in (_TRUE, _FALSE):
        meaning = known.get(words[0], UNKNOWN)
        known |= {text: meaning for word in words for text in _in_any_case(word)}
    return _objects(list(known)), np.array(list(known.values()), np.int64)


def _in_any_case(word: str) -> list[str]:
    texts = [""]
    for letter in word:
        texts = [text + case for text in texts for case in {letter.lower(), letter.upper()}]
    return texts


def _objects(texts: Sequence[str]) -> NDArray[np.object_]:
    objects = np.empty(len(texts), object)
    objects[:] = list(texts)
    return objects


def _is_int64(text: str) -> bool:
    try:
        return NO_WHOLE_NUMBER < int(text) < 2**63 and str(int(text)) == text
    except ValueError:
        return False


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
