"""The formula as ONNX nodes: from feature ids to logits, effects and probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from attfm.model.calibration import Calibration
from attfm.model.ensemble import Scorer, members_of
from attfm.model.memory import PairMemory
from attfm.model.modules import FactorizationMachine
from attfm.ops import all_pairs
from attfm.ops.slots import FREE
from attfm.serve.onnx.columns import PAD, FieldIds
from attfm.serve.onnx.nodes import Nodes


@dataclass(frozen=True)
class Rows:
    """Encoded rows: names of values.

    Attributes
    ----------
    single : int64 (batch, single fields), features of the fields that have one, in the order of `places`
    x : float (batch, single fields), what multiplies them, or None
    places : of each field, its place in `single`; None of a field that has members
    bags : the fields that have members, by field number
    """

    single: str | None
    x: str | None
    places: tuple[int | None, ...]
    bags: dict[int, FieldIds]


@dataclass(frozen=True)
class Sums:
    """What one machine adds up, or the mean of several: names of values; the effects are None where not wanted.

    logit : float (batch, outputs); main : (batch, fields, outputs); pair : (batch, pairs, outputs)
    intercept : float32 (outputs,)
    """

    logit: str
    main: str | None
    pair: str | None
    intercept: NDArray[np.float64]


def rows_of(nodes: Nodes, fields: Sequence[FieldIds]) -> Rows:
    """Return the fields' features as the formula takes them."""
    single = [field for field in fields if not field.has_members]
    numbers = {id(field): place for place, field in enumerate(single)}
    places = tuple(numbers.get(id(field)) for field in fields)
    bags = {f: field for f, field in enumerate(fields) if field.has_members}
    if not single:
        return Rows(None, None, places, bags)
    ids = nodes.concat([nodes.column(field.ids) for field in single], 1)
    x = None
    if any(field.x is not None for field in single):
        of_one = nodes.cast(nodes.filled_like(single[0].ids, 1), "float")
        x = nodes.concat([nodes.column(field.x or of_one) for field in single], 1)
    return Rows(ids, x, places, bags)


def sums_of(nodes: Nodes, module: Scorer, rows: Rows, *, effects: bool) -> Sums:
    """Return the logits of rows, and their terms where these are wanted; of an ensemble the means."""
    parts = [_machine(nodes, machine, rows, effects=effects) for machine in members_of(module)]
    if len(parts) == 1:
        return parts[0]

    def mean(names: Sequence[str | None]) -> str | None:
        given = [name for name in names if name is not None]
        return nodes.add("Mean", *given) if given else None

    return Sums(
        nodes.add("Mean", *(part.logit for part in parts)), mean([part.main for part in parts]),
        mean([part.pair for part in parts]), np.mean([part.intercept for part in parts], axis=0),
    )  # fmt: skip


def _machine(nodes: Nodes, module: FactorizationMachine, rows: Rows, *, effects: bool) -> Sums:
    unit = np.broadcast_to(module.target_std.double().numpy(), module.outputs).astype(np.float32)
    base = module.target_mean.double().numpy() + unit * module.intercept.detach().double().numpy()
    main = _vectors(nodes, module.linear.weight, rows)
    logit = nodes.total(main, 1)
    pair = _pairs(nodes, module, rows, effects=effects) if module.has_pairs else None
    if pair is not None:
        logit = nodes.add("Add", logit, nodes.total(pair, 1) if effects else pair)
    if not effects and module.memory is not None:
        logit = nodes.add("Add", logit, nodes.total(_remembered(nodes, module.memory, rows), 1))
    logit = nodes.add("Add", nodes.add("Mul", logit, _constant(nodes, unit)), _constant(nodes, base))
    if not effects:
        return Sums(logit, None, None, base)
    scaled = [None if terms is None else nodes.add("Mul", terms, _constant(nodes, unit)) for terms in (main, pair)]
    return Sums(logit, scaled[0], scaled[1], base)


def _vectors(nodes: Nodes, table: Tensor, rows: Rows) -> str:
    """Return each field's vector, the sum of x · table[feature] over its features, (batch, fields, width)."""
    array = table.detach().numpy()
    own = _constant(nodes, np.vstack([array, np.zeros_like(array[:1])]) if rows.bags else array)
    parts: list[str] = []
    if rows.single is not None:
        vectors = nodes.add("Gather", own, rows.single, axis=0)
        if rows.x is not None:
            vectors = nodes.add("Mul", vectors, nodes.add("Unsqueeze", rows.x, nodes.constant([2], np.int64)))
        parts.append(vectors)
    if not rows.bags:
        return parts[0]
    for bag in rows.bags.values():
        absent = nodes.add("Equal", bag.ids, nodes.constant(PAD, np.int64))
        ids = nodes.add("Where", absent, nodes.constant(len(array), np.int64), bag.ids)
        vectors = nodes.add("Gather", own, ids, axis=0)
        if bag.x is not None:
            vectors = nodes.add("Mul", vectors, nodes.add("Unsqueeze", bag.x, nodes.constant([2], np.int64)))
        parts.append(nodes.total(vectors, 1, keep=True))
    singles = len(rows.places) - len(rows.bags)
    bags = iter(range(singles, len(rows.places)))
    order = [next(bags) if place is None else place for place in rows.places]
    return nodes.pick(nodes.concat(parts, 1), np.array(order), 1)


def _pairs(nodes: Nodes, module: FactorizationMachine, rows: Rows, *, effects: bool) -> str:
    """Return the pair effects (batch, pairs, outputs), or their sum (batch, outputs), memory left out of the sum."""
    attention, (i, j) = module.attention, all_pairs(module.fields).numpy()
    vectors = _vectors(nodes, module.embedding.weight, rows)
    q = nodes.add("Mul", nodes.pick(vectors, i, 1), nodes.pick(vectors, j, 1))
    gate = np.full(attention.pairs, attention.scale, np.float32)
    if attention.pair_gate is not None:
        gate = gate * attention.pair_gate.detach().numpy()
    applied = None  # A_ij (batch, pairs) where it depends on the row, else the gate
    if attention.W is not None:
        hidden = nodes.add("MatMul", q, _constant(nodes, attention.W.detach().numpy()))
        hidden = nodes.add("Relu", nodes.add("Add", hidden, _constant(nodes, attention.b.detach().numpy())))
        e = nodes.add("MatMul", hidden, _constant(nodes, attention.h.detach().numpy()))
        if attention.pair_bias is not None:
            e = nodes.add("Add", e, _constant(nodes, attention.pair_bias.detach().numpy()))
        applied = nodes.add("Mul", nodes.add("Softmax", e, axis=1), _constant(nodes, gate))
    p = _constant(nodes, module.projection.detach().numpy())
    if effects:
        products = nodes.add("MatMul", q, p)
        weight = _constant(nodes, gate[:, None]) if applied is None else nodes.add(
            "Unsqueeze", applied, nodes.constant([2], np.int64))  # fmt: skip
        pair = nodes.add("Mul", products, weight)
        if module.memory is None:
            return pair
        remembered = _remembered(nodes, module.memory, rows)
        # Each pair adds its own memory, or that of no pair: a column of zeros behind them.
        place = np.full(attention.pairs, len(module.remembered_pairs))
        place[module.remembered_pairs] = np.arange(len(module.remembered_pairs))
        none = nodes.add("Mul", nodes.total(remembered, 1, keep=True), nodes.constant(0.0, np.float32))
        return nodes.add("Add", pair, nodes.pick(nodes.concat([remembered, none], 1), place, 1))
    if applied is None:  # Σ g_ij q_ij
        pooled = nodes.total(nodes.add("Mul", q, _constant(nodes, gate[:, None])), 1)
    else:
        weight = nodes.add("Unsqueeze", applied, nodes.constant([1], np.int64))
        pooled = nodes.add("Squeeze", nodes.add("MatMul", weight, q), nodes.constant([1], np.int64))
    return nodes.add("MatMul", pooled, p)


def _remembered(nodes: Nodes, memory: PairMemory, rows: Rows) -> str:
    """Return u of each remembered pair, (batch, remembered, outputs): keys looked up, defaults where not known."""
    if rows.single is None:
        raise TypeError("a pair memory is of fields that have one feature")
    levels = _constant(nodes, memory.levels.of_feature.astype(np.int64))
    first, second = (
        nodes.add("Gather", levels, nodes.pick(rows.single, np.array([rows.places[f] for f in fields]), 1), axis=0)
        for fields in memory.pairs.T
    )
    key = nodes.add("Add", nodes.add("Mul", first, _constant(nodes, memory.keys.width)), second)
    key = nodes.add("Add", key, _constant(nodes, memory.keys.offset))
    taken = memory.slots != FREE
    known, size = memory.slots[taken], len(memory.unknown)
    # The defaults stand first in the table of effects, then the known value pairs.
    place = nodes.lookup(key, known, size + np.arange(len(known)), -1)
    unknown = nodes.add("Less", place, nodes.constant(0, np.int64))
    place = nodes.add("Where", unknown, nodes.constant(np.arange(size)), place)
    table = np.concatenate([memory.unknown, memory.effects[taken]])
    return nodes.add("Gather", _constant(nodes, table), place, axis=0)


def scores_of(nodes: Nodes, logit: str, calibration: Calibration, outputs: int) -> str:
    """Return the probabilities of all classes, double (batch, classes), by the link or by isotonic curves."""
    z = nodes.cast(logit, "double")
    if not calibration.curves:
        if outputs > 1:
            return nodes.add("Softmax", z, axis=1)
        return nodes.concat([nodes.add("Sigmoid", nodes.add("Neg", z)), nodes.add("Sigmoid", z)], 1)
    if outputs == 1:
        (curve,) = calibration.curves
        share = _interpolated(nodes, z, np.array(curve.logits), np.array(curve.probabilities))
        return nodes.concat([nodes.add("Sub", nodes.constant(1.0, np.float64), share), share], 1)
    # The log-odds of each class: its logit less the logarithm of the others' exponentials, all less the greatest logit.
    greatest = nodes.add("ReduceMax", z, nodes.constant([1], np.int64), keepdims=1)
    z = nodes.add("Sub", z, greatest)
    others = nodes.add("MatMul", nodes.add("Exp", z), nodes.constant(1 - np.eye(outputs), np.float64))
    odds = nodes.add("Sub", z, nodes.add("Log", others))
    shares = []
    for c, curve in enumerate(calibration.curves):
        own = nodes.pick(odds, np.array([c]), 1)
        shares.append(_interpolated(nodes, own, np.array(curve.logits), np.array(curve.probabilities)))
    each = nodes.concat(shares, 1)
    return nodes.add("Div", each, nodes.total(each, 1, keep=True))


def _interpolated(nodes: Nodes, x: str, xs: NDArray[np.float64], ys: NDArray[np.float64]) -> str:
    """Return a curve, straight between its points and level outside of them, at (batch, 1) places."""
    low, high = (nodes.constant(end, np.float64) for end in (xs[0], xs[-1]))
    x = nodes.add("Min", nodes.add("Max", x, low), high)
    if len(xs) == 1:
        return nodes.add("Add", nodes.add("Mul", x, nodes.constant(0.0, np.float64)), nodes.constant(ys[0], np.float64))
    passed = nodes.add("GreaterOrEqual", x, nodes.constant(xs[1:-1], np.float64))
    piece = nodes.total(nodes.cast(passed, "int64"), 1, keep=True)
    slope = np.diff(ys) / np.diff(xs)
    start, rise, from_x = (
        nodes.add("Gather", nodes.constant(of_piece, np.float64), piece, axis=0)
        for of_piece in (ys[:-1], slope, xs[:-1])
    )
    return nodes.add("Add", start, nodes.add("Mul", rise, nodes.add("Sub", x, from_x)))


def _constant(nodes: Nodes, array: NDArray[np.generic]) -> str:
    kind = np.int64 if np.issubdtype(array.dtype, np.integer) else np.float32
    return nodes.constant(np.asarray(array, kind))
