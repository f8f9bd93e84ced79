"""What a user gets for some rows: arrays with names, tables of them, and other libraries' forms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attfm.errors import ConfigError, MissingExtraError
from attfm.explain.effect import Effect, joined
from attfm.explain.grouping import group_fields, summed
from attfm.model.ensemble import jackknife_error
from attfm.model.task import LOGIT, UNCALIBRATED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
View = Literal["centred", "raw"]
BY_ROW = (
    "main", "pair", "attention", "applied", "labels", "rows", "within_attention", "within_applied", "memory", "seen",
    "members_main", "members_pair",
)  # fmt: skip


@dataclass(frozen=True)
class Explanation:
    """The exact account of some rows: base + Σ main + Σ pair = logit, for each row and output.

    Attributes
    ----------
    view : str, "centred": effects relative to their average over the training rows; "raw": the terms of the formula
    fields : tuple of str, names of the fields
    pairs : int64 (pairs, 2), their field numbers
    outputs : tuple of str
        What each account is of: the second class of two, every class of more, or the target of a regression.
    unit : str, "logit" (the calibrated one, where the model is calibrated by temperature or sigmoid), "uncalibrated
        logit" (by isotonic curves, which bend the sum on its way to the probability), or a regression's target
    base : float64 (outputs,), the intercept in the raw view, the mean over the training rows in the centred one
    main : float64 (rows, fields, outputs)
    pair : float64 (rows, pairs, outputs)
    attention : float32 (rows, pairs) or None, a_ij; None where the model has no attention
    applied : float32 (rows, pairs), a_ij
    labels : str (rows, fields), what each field's value is called
    rows : int64 (rows,), numbers of the rows in the table that was explained
    conditional : bool (pairs,), in the centred view whether what is really a main effect was moved out of the pair;
        where false only its overall mean was moved
    within_attention, within_applied : float32 (rows, fields) or None
        a_ij and A_ij summed over the pairs inside each group, 0 of a field in none; None where fields were not grouped
        (see `grouped`), attention also without attention.
    memory : float64 (rows, pairs, outputs) or None
        The part of each raw pair effect that is remembered of the two values (u of DESIGN section 1); NaN of a pair
        without a memory, None where no pair has one.
    seen : int32 (rows, pairs) or None, training rows that had the two values; -1 of a pair without a memory
    members_main, members_pair : float32 (rows, models, fields, outputs) and (rows, models, pairs, outputs), or None
        The effects of each member of an ensemble, of which `main` and `pair` are the means; None of one model.

    Slices are taken by row: `e[0]`, `e[2:5]`, `e[mask]`.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from attfm import AFMClassifier
    >>> X = pa.table({"job": ["cook", "cook", "pilot", "pilot"] * 20, "age": [25, 61] * 40})
    >>> model = AFMClassifier(epochs=20).fit(X, ["no", "yes"] * 40)
    >>> e = model.explain(X.slice(0, 4))
    >>> e.names
    ('job', 'age', 'job × age')
    >>> bool(abs(e.base + e.values.sum(1) - model.decision_function(X.slice(0, 4))).max() < 1e-5)
    True
    >>> [(effect.name, effect.value) for effect in e.top(1)[3]]
    [('age', '61')]
    """

    view: View
    fields: tuple[str, ...]
    pairs: NDArray[np.int64]
    outputs: tuple[str, ...]
    unit: str
    base: Floats
    main: Floats
    pair: Floats
    attention: NDArray[np.float32] | None
    applied: NDArray[np.float32]
    labels: NDArray[np.object_]
    rows: NDArray[np.int64]
    conditional: NDArray[np.bool_]
    within_attention: NDArray[np.float32] | None = None
    within_applied: NDArray[np.float32] | None = None
    memory: Floats | None = None
    seen: NDArray[np.int32] | None = None
    members_main: NDArray[np.float32] | None = None
    members_pair: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.main)

    def __repr__(self) -> str:
        return f"Explanation({len(self)} rows, {len(self.fields)} fields, {len(self.pairs)} pairs, view={self.view!r})"

    def __getitem__(self, rows: int | slice | NDArray[Any] | Sequence[int]) -> Explanation:
        """Return the explanation of some rows."""
        if isinstance(rows, int | np.integer):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"There is no row {rows}: the explanation has {len(self)} rows, 0 to {len(self) - 1}.")
            rows = [int(rows)]
        arrays = {name: getattr(self, name) for name in BY_ROW}
        return replace(self, **{name: array[rows] for name, array in arrays.items() if array is not None})

    @property
    def in_logits(self) -> bool:
        """Whether effects are in logits, calibrated or not; else they are in the unit of a regression's target."""
        return self.unit in (LOGIT, UNCALIBRATED)

    @cached_property
    def pair_names(self) -> tuple[str, ...]:
        """Names of the pairs, "age × job"."""
        return tuple(joined((self.fields[i], self.fields[j])) for i, j in self.pairs)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all effects, fields, then pairs; a column called "a × b" is named as the pair of "a" and "b"."""
        return self.fields + self.pair_names

    @property
    def values(self) -> Floats:
        """All effects: (rows, effects), or (rows, effects, outputs) with several outputs."""
        both = np.concatenate([self.main, self.pair], axis=1)
        return both[:, :, 0] if len(self.outputs) == 1 else both

    @cached_property
    def spread(self) -> Floats | None:
        """The standard error of each effect, shaped as `values`, by the jackknife over the members of an ensemble.

        None of one model. The effect plus and minus twice its spread is about a 95 % interval; see
        `attfm.model.ensemble.jackknife_error` for what is in it.
        """
        errors = self._errors
        return errors[:, :, 0] if errors is not None and len(self.outputs) == 1 else errors

    @cached_property
    def _errors(self) -> Floats | None:
        """The standard errors of all effects, (rows, effects, outputs), or None."""
        if self.members_main is None or self.members_pair is None:
            return None
        return jackknife_error(np.concatenate([self.members_main, self.members_pair], axis=2).swapaxes(0, 1))

    @property
    def logits(self) -> Floats:
        """Base and effects summed: (rows, outputs) logits, or predictions of a regression."""
        logits: Floats = self.base + self.main.sum(1) + self.pair.sum(1)
        return logits

    def top(self, n: int = 10, *, output: str | int | None = None) -> list[list[Effect]]:
        """Return each row's n largest effects by absolute size, largest first."""
        number = output_number(self.outputs, output)
        effects = np.concatenate([self.main[:, :, number], self.pair[:, :, number]], axis=1)
        order = np.argsort(-np.abs(effects), axis=1, kind="stable")[:, :n]
        return [[self._effect(row, int(e), number) for e in order[row]] for row in range(len(self))]

    def _effect(self, row: int, number: int, output: int) -> Effect:
        memory = seen = None
        spread = None if self._errors is None else float(self._errors[row, number, output])
        if number < len(self.fields):
            ends, attention, applied = [number], self.within_attention, self.within_applied
            effect = float(self.main[row, number, output])
        else:
            number -= len(self.fields)
            ends, attention, applied = self.pairs[number].tolist(), self.attention, self.applied
            effect = float(self.pair[row, number, output])
            if self.memory is not None and not np.isnan(self.memory[row, number, output]):
                memory = float(self.memory[row, number, output])
                seen = None if self.seen is None else int(self.seen[row, number])
        fields, values = zip(*((self.fields[f], str(self.labels[row, f])) for f in ends), strict=True)
        weights = [None if array is None else float(array[row, number]) for array in (attention, applied)]
        return Effect(fields, values, effect, weights[0], weights[1], memory, seen, spread)

    def grouped(self, groups: Mapping[str, Sequence[str]]) -> Explanation:
        """Return the explanation with fields summed into groups, such as {"person": ["age", "sex"]}.

        A group's main effect holds its fields' main effects and the pair effects inside it; pair effects between two
        groups are summed. No pair is left out, so the account still adds up to the logit. The weights go the same way:
        `attention` of two groups is the sum of a_ij over the pairs between them, and that of the pairs inside a group
        is in `within_attention`; both together sum to 1 over a row. What is remembered is summed between two groups;
        how often values were seen is said of single pairs only.

        Raises
        ------
        ConfigError : a field does not exist or is in two groups, or a group is called like another field
        """
        fields, group_of = group_fields(self.fields, groups)
        ends = np.sort(group_of[self.pairs], axis=1).reshape(-1, 2)
        between = ends[:, 0] != ends[:, 1]
        pairs, place = np.unique(ends[between], axis=0, return_inverse=True)
        pairs, inside = pairs.reshape(-1, 2), ends[~between, 0]
        conditional = np.bincount(place.ravel(), ~self.conditional[between], minlength=len(pairs)) == 0

        def split(values: NDArray[Any], own: NDArray[Any] | None) -> tuple[NDArray[Any], NDArray[Any]]:
            """Return sums over the pairs inside each group, with what its fields have of their own, and between two."""
            within = summed(values[:, ~between], inside, len(fields))
            if own is not None:
                within += summed(own, group_of, len(fields))
            return within, summed(values[:, between], place.ravel(), len(pairs))

        main, pair = split(self.pair, self.main)
        within_applied, applied = split(self.applied, self.within_applied)
        within_attention = attention = None
        if self.attention is not None:
            within_attention, attention = split(self.attention, self.within_attention)
        members_main, members_pair = self.members_main, self.members_pair
        if members_main is not None and members_pair is not None:
            shape = members_main.shape[:2]
            parts = split(
                members_pair.reshape(-1, *members_pair.shape[2:]), members_main.reshape(-1, *members_main.shape[2:])
            )
            members_main, members_pair = (part.reshape(*shape, *part.shape[1:]) for part in parts)
        memory = None
        if self.memory is not None:
            between_groups = self.memory[:, between]
            memory = summed(np.nan_to_num(between_groups), place.ravel(), len(pairs))
            memory[summed((~np.isnan(between_groups)).astype(np.int64), place.ravel(), len(pairs)) == 0] = np.nan
        labels = np.empty((len(self), len(fields)), dtype=object)
        for group in range(len(fields)):
            members = np.flatnonzero(group_of == group)
            labels[:, group] = [", ".join(row) for row in self.labels[:, members]]
        return replace(
            self, fields=fields, pairs=pairs, main=main, pair=pair, labels=labels, conditional=conditional,
            attention=attention, applied=applied, within_attention=within_attention, within_applied=within_applied,
            memory=memory, seen=None, members_main=members_main, members_pair=members_pair,
        )  # fmt: skip

    def to_arrow(self) -> pa.Table:
        """Return a table with a row for each row and output: its number, the base, all effects, and their sum.

        Columns: "row", "output" (with several), "base", "effect of age", ..., "effect of age × job", ..., "logit"
        (or "prediction" of a regression). A name that is there already ends in a number, "effect of a × b (2)".
        """
        rows, outputs = len(self), len(self.outputs)
        columns: dict[str, Any] = {"row": np.repeat(self.rows, outputs)}
        if outputs > 1:
            columns["output"] = pa.array(list(self.outputs) * rows, pa.string())
        columns["base"] = np.tile(self.base, rows)
        effects = np.concatenate([self.main, self.pair], axis=1)
        columns |= {f"effect of {name}": effects[:, n].ravel() for n, name in enumerate(_distinct(self.names))}
        columns["logit" if self.in_logits else "prediction"] = self.logits.ravel()
        return pa.table(columns)

    def to_frame(self, kind: Literal["auto", "pandas", "polars"] = "auto") -> Any:
        """Return the table of `to_arrow` as a pandas or polars DataFrame; "auto": the first that is installed.

        Raises
        ------
        MissingExtraError : it is not installed
        """
        absent = " is not installed: run 'pip install pandas'."
        if kind != "polars":
            try:
                import pandas  # noqa: F401
            except ImportError:
                if kind == "pandas":
                    raise MissingExtraError("pandas" + absent) from None
            else:
                return self.to_arrow().to_pandas()
        try:
            import polars
        except ImportError:
            raise MissingExtraError(("polars" if kind == "polars" else "pandas or polars") + absent) from None
        return polars.from_arrow(self.to_arrow())

    def to_shap(self) -> Any:
        """Return a `shap.Explanation`, for shap.plots.waterfall, beeswarm and bar.

        Returns
        -------
        shap.Explanation : values : (rows, effects), with several outputs (rows, effects, outputs); base_values :
            (rows,) or (rows, outputs); display_data : what the values are called; data : numbers that colour the
            points: a field's value among those of these rows in alphabetical order, 0 for pairs

        Raises
        ------
        MissingExtraError : shap is not installed
        """
        try:
            import shap
        except ImportError:
            raise MissingExtraError("shap is not installed: run 'pip install shap'.") from None
        effects = range(len(self.names))
        texts = [[self._effect(row, number, 0).value for number in effects] for row in range(len(self))]
        codes = [np.unique(column.astype(str), return_inverse=True)[1].ravel() for column in self.labels.T]
        data = np.zeros((len(self), len(self.names)))
        data[:, : len(self.fields)] = np.stack(codes, 1) if codes else 0
        base = np.tile(self.base, (len(self), 1))
        several = len(self.outputs) > 1
        return shap.Explanation(
            values=self.values, base_values=base if several else base[:, 0], data=data,
            display_data=np.array(texts, dtype=object), feature_names=list(self.names),
            output_names=list(self.outputs) if several else None,
        )  # fmt: skip

    def to_dict(self, *, top: int | None = None) -> dict[str, Any]:
        """Return plain lists and numbers, with the `top` largest effects of each row and output; None: all."""
        unit = "logit" if self.in_logits else "prediction"
        n = len(self.names) if top is None else top
        accounts = [self.top(n, output=number) for number in range(len(self.outputs))]
        logits = self.logits
        only_mean_moved = [self.pair_names[p] for p in np.flatnonzero(~self.conditional)]
        return {
            "view": self.view,
            "unit": self.unit,
            "base": dict(zip(self.outputs, self.base.tolist(), strict=True)),
            "only_mean_moved": only_mean_moved if self.view == "centred" else [],
            "rows": [
                {
                    "row": int(self.rows[row]),
                    "accounts": [
                        {"output": output, unit: float(logits[row, number]),
                         "effects": [effect.to_dict() for effect in accounts[number][row]]}
                        for number, output in enumerate(self.outputs)
                    ],
                }
                for row in range(len(self))
            ],
        }  # fmt: skip

    def to_json(self, *, top: int | None = None) -> str:
        """Return `to_dict` as JSON text."""
        return json.dumps(self.to_dict(top=top), ensure_ascii=False, allow_nan=False)

    def plot(self, row: int = 0, *, output: str | int | None = None, n: int = 12, ax: Axes | None = None) -> Axes:
        """Draw one row's account as a waterfall; see `attfm.plots.effects.waterfall`."""
        from attfm.plots.effects import waterfall

        return waterfall(self, row, output=output, n=n, ax=ax)


def output_number(outputs: Sequence[str], output: str | int | None) -> int:
    """Return the number of an output, given by its name or number; None is the only one."""
    listed = ", ".join(f"'{name}'" for name in outputs)
    if output is None and len(outputs) == 1:
        return 0
    if output is None:
        raise ConfigError(f"Each class has an account of its own: give output=, one of {listed}.")
    if isinstance(output, int) and 0 <= output < len(outputs):
        return output
    if output not in outputs:
        raise ConfigError(f"There is no output {output!r}: it is one of {listed}.")
    return outputs.index(str(output))


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names, numbered where they repeat an earlier one."""
    taken = dict[str, None]()
    for name in names:
        number, free = 1, name
        while free in taken:
            number += 1
            free = f"{name} ({number})"
        taken[free] = None
    return list(taken)
