"""What a model adds up, as one table of numbers by feature and by pair of features: what a SQL query joins with."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from attfm.data.codecs.codec import FIRST_VALUE, Field
from attfm.errors import ConfigError
from attfm.model.bundle import Model
from attfm.model.ensemble import members_of
from attfm.model.modules import FactorizationMachine
from attfm.model.terms import all_field_pairs, field_pairs
from attfm.ops.slots import find_slots

Floats = NDArray[np.float64]
NO_FEATURE = -1  # the second feature of a main effect
_WIDEST = 600.0  # difference of attention logits whose exponentials stand beside each other in a double


@dataclass(frozen=True)
class TermTable:
    """Rows of numbers by two features, of which a row of data has one for each field and one for each pair of fields.

    logit = base + Σ fixed + Σ over attentive machines (Σ weighted / Σ share), of each output

    Attributes
    ----------
    base : float64 (outputs,)
    first, second : int64 (rows,), features; `second` is NO_FEATURE where it is a main effect
    fixed : float64 (rows, outputs), what adds up as it is: main effects, remembered ones, pairs without attention
    share : float64 (rows, attentive machines), exp(e_ij), up to a factor; 0 of main effects
    weighted : float64 (rows, attentive machines, outputs), share · scale · g_ij (p · q_ij) / machines
    """

    base: Floats
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    fixed: Floats
    share: Floats
    weighted: Floats

    @property
    def attentive(self) -> int:
        """How many machines have attention."""
        return int(self.share.shape[1])


def possible_features(field: Field) -> NDArray[np.int64]:
    """Return the features that rows can have: all, but that a number in a column of bins is never unknown."""
    first = field.start + 1 if field.kind == "numeric" and field.size > FIRST_VALUE else field.start
    return np.arange(first, field.stop)


def check_fits(model: Model, limit: int) -> None:
    """Raise ConfigError where a model's tables have more numbers than `limit`; the sentence names the sizes."""
    sizes = {field.name: len(possible_features(field)) for field in model.encoder.fields}
    of_pairs = {
        (i, j): len(possible_features(model.encoder.fields[i])) * len(possible_features(model.encoder.fields[j]))
        for i, j in field_pairs(model.module).tolist()
    }
    columns = 2 + model.module.outputs
    if model.module.has_pairs and model.config.model.attention:
        columns += len(members_of(model.module)) * (1 + model.module.outputs)
    rows = sum(sizes.values()) + sum(of_pairs.values())
    if rows * columns > limit:
        widest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:3]
        named = ", ".join(f"'{name}' {sizes[name]:,}" for name in widest)
        raise ConfigError(
            f"The query's tables would have {rows * columns:,} numbers ({sum(sizes.values()):,} values, "
            f"{sum(of_pairs.values()):,} pairs of values, {columns} numbers each), more than the limit of {limit:,}; "
            f"most values have the fields {named}. Raise --limit, train with a smaller 'max_bins' or a higher "
            "'min_count', or export to ONNX."
        )


def term_table(model: Model) -> TermTable:
    """Return the table of a model whose fields have one feature a row, and none is scaled."""
    parts = list(_parts(model))
    machines = members_of(model.module)
    base = np.mean(
        [
            machine.target_mean.double().numpy()
            + machine.target_std.double().numpy() * machine.intercept.detach().double().numpy()
            for machine in machines
        ],
        axis=0,
    )
    first, second, fixed, share, weighted = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    kept = np.arange(share.shape[1])[share.any(0)]
    return TermTable(np.atleast_1d(base), first, second, fixed, share[:, kept], weighted[:, kept])


def _parts(model: Model) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats, Floats]]:
    machines, fields = members_of(model.module), model.encoder.fields
    outputs = model.module.outputs
    shifts = [_middle(machine, model) for machine in machines]
    for field in fields:
        features = possible_features(field)
        main = np.mean([_unit(machine) * _rows(machine.linear.weight, features) for machine in machines], axis=0)
        none = np.zeros((len(features), len(machines)))
        yield features, np.full(len(features), NO_FEATURE), main, none, np.zeros((*none.shape, outputs))
    for p, (i, j) in enumerate(all_field_pairs(len(fields)) if model.module.has_pairs else ()):
        first, second = (a.ravel() for a in np.meshgrid(*map(possible_features, (fields[i], fields[j])), indexing="ij"))
        fixed = np.zeros((len(first), outputs))
        share = np.zeros((len(first), len(machines)))
        weighted = np.zeros((len(first), len(machines), outputs))
        for m, machine in enumerate(machines):
            unit = _unit(machine) / len(machines)
            logit, product = _pair_terms(machine, p, first, second)
            if logit is None:
                fixed += unit * product
            else:
                share[:, m] = np.exp(logit - shifts[m])
                weighted[:, m] = share[:, m, None] * unit * product
            fixed += unit * _remembered(machine, int(i), int(j), first, second)
        yield first, second, fixed, share, weighted


def _unit(machine: FactorizationMachine) -> Floats:
    return np.asarray(machine.target_std.double().numpy(), np.float64)


def _rows(table: Tensor, features: NDArray[np.int64]) -> Floats:
    return np.asarray(table.detach().numpy()[features], np.float64)


def _pair_terms(
    machine: FactorizationMachine, p: int, first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[Floats | None, Floats]:
    """Return e_ij (None without attention) and scale · g_ij (p · q_ij) of pairs of features, (n,) and (n, outputs)."""
    attention = machine.attention
    q = _rows(machine.embedding.weight, first) * _rows(machine.embedding.weight, second)
    gate = attention.scale * (1.0 if attention.pair_gate is None else float(attention.pair_gate.detach()[p]))
    product = gate * (q @ machine.projection.detach().double().numpy())
    if attention.W is None:
        return None, product
    W, b, h = (part.detach().double().numpy() for part in (attention.W, attention.b, attention.h))
    e = np.maximum(q @ W + b, 0) @ h
    return e + (0.0 if attention.pair_bias is None else float(attention.pair_bias.detach()[p])), product


def _middle(machine: FactorizationMachine, model: Model) -> float:
    """Return the middle of a machine's attention logits; raise ConfigError where they lie too far from each other."""
    if not machine.has_pairs or machine.attention.W is None:
        return 0.0
    low, high, fields = np.inf, -np.inf, model.encoder.fields
    for p, (i, j) in enumerate(all_field_pairs(len(fields))):
        first, second = (a.ravel() for a in np.meshgrid(*map(possible_features, (fields[i], fields[j])), indexing="ij"))
        e, _ = _pair_terms(machine, p, first, second)
        if e is not None and len(e):
            low, high = min(low, float(e.min())), max(high, float(e.max()))
    if high - low > _WIDEST:
        raise ConfigError(
            f"The attention logits of this model span {high - low:.0f}, and their exponentials don't stand beside each "
            "other in a query's numbers: export to ONNX."
        )
    return 0.5 * (low + high) if np.isfinite(low) else 0.0


def _remembered(
    machine: FactorizationMachine, i: int, j: int, first: NDArray[np.int64], second: NDArray[np.int64]
) -> Floats:
    """Return what the pair memory holds of pairs of features of two fields, (n, outputs)."""
    memory = machine.memory
    places = [] if memory is None else np.flatnonzero((memory.pairs == (i, j)).all(1)).tolist()
    if memory is None or not places:
        return np.zeros((len(first), machine.outputs))
    level = memory.levels.of_feature.astype(np.int64)
    keys = memory.keys.of(places[0], level[first], level[second])
    slots = find_slots(memory.slots, keys)
    return np.where(slots[:, None] >= 0, memory.effects[np.maximum(slots, 0)], memory.unknown[places[0]]).astype(float)
