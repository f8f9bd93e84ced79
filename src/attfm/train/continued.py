"""Learning on: a trained model that knows what new rows bring, and where its machines begin."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from attfm.config import Config
from attfm.data.codecs.codec import FIRST_VALUE, UNKNOWN, Field, Renewal
from attfm.data.codecs.pairs import PairLevels
from attfm.data.encoder import Encoder
from attfm.errors import ConfigError
from attfm.model.bundle import Model
from attfm.model.ensemble import Ensemble, Scorer, members_of
from attfm.model.memory import PairMemory
from attfm.model.modules import FactorizationMachine
from attfm.model.sums import places_of
from attfm.ops.slots import FREE

_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Continuation:
    """A trained model that is to learn on from new rows, and how earlier rows are taken on."""

    model: Model
    renewal: Renewal

    @classmethod
    def of(
        cls, model: Model, *, half_life: float | None = None, evict_unseen: float | None = None,
        as_of: str | date | None = None, refit_bins: bool = False,
    ) -> "Continuation":  # fmt: skip
        """Return the continuation that is asked for.

        Parameters
        ----------
        half_life : days after which an earlier row counts half in counts, rates and pair memory; None: never
        evict_unseen : values that were seen last more than so many days ago are forgotten; None: none are
        as_of : the day of the new rows, as 2024-03-01; None: today (UTC)
        refit_bins : whether numeric bins are cut again

        Raises
        ------
        ConfigError : a setting is out of its range, the day is none or lies before that of the model, or the model
            holds no sums to go on from
        """
        for name, days in (("half_life", half_life), ("evict_unseen", evict_unseen)):
            if days is not None and not (isinstance(days, int | float) and math.isfinite(days) and days > 0):
                raise ConfigError(f"{name} is {days!r}: give a number of days above 0.")
        if any(machine.memory is not None and machine.sums is None for machine in members_of(model.module)):
            raise ConfigError(
                "The model was trained by an earlier attfm, which kept no sums of its rows: train it anew once, then "
                "it can learn on."
            )
        today, before = day_of(as_of), day_of(model.facts.as_of)
        if today < before:
            raise ConfigError(
                f"The new rows are of {day_told(today)}, but the model has learned from rows of {day_told(before)}: "
                "give a day that is not before it."
            )
        return cls(model, Renewal(before, today, half_life, evict_unseen, refit_bins))

    @property
    def key(self) -> list[Any]:
        """What tells one from others, as JSON values, but for the weights, which do not matter to the encoding."""
        table, sink = self.model.encoder.to_table(), pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return [hashlib.sha256(sink.getvalue()).hexdigest(), self.model.schema.to_json(), asdict(self.renewal)]


def day_of(day: str | date | None) -> int:
    """Return a day as its number since 1970, None: today; raise ConfigError where it is none."""
    if day is None:
        day = datetime.now(UTC).date()
    try:
        own = day if isinstance(day, date) else date.fromisoformat(day)
    except (TypeError, ValueError):
        raise ConfigError(f"as_of is {day!r}: give a day as 2024-03-01.") from None
    return date(own.year, own.month, own.day).toordinal() - _EPOCH.toordinal()


def day_told(day: int) -> str:
    """Return a day, given as its number since 1970, as 2024-03-01."""
    return date.fromordinal(day + _EPOCH.toordinal()).isoformat()


@dataclass(frozen=True)
class Beginning:
    """Where one machine begins.

    Attributes
    ----------
    machine : with rows for the new values, without calibration
    linear, embedding : (features, outputs), (features, dim) or None: each feature's own rows of w and V, to which the
        bins of its statistics are added
    """

    machine: FactorizationMachine
    linear: Tensor
    embedding: Tensor | None

    @torch.no_grad()
    def set_in(self, module: FactorizationMachine) -> None:
        """Let a module begin here: one of the same size, or one that has rows for bins of statistics too."""
        sums, features = self.machine.sums, len(self.linear)
        tables = {"linear.weight": (self.linear, "linear"), "embedding.weight": (self.embedding, "embedding")}
        state = {name: tensor for name, tensor in self.machine.state_dict().items() if name not in tables}
        module.load_state_dict(state, strict=False)
        parameters = dict(module.named_parameters())
        for name, (own, of_bins) in tables.items():
            if own is not None:
                parameters[name][:features] = own
            if sums is not None and sums.learned is not None and len(parameters.get(name, ())) > features:
                parameters[name][features:] = torch.from_numpy(getattr(sums.learned, of_bins))
        if sums is not None and sums.learned is not None and "binned.weight" in parameters:
            parameters["binned.weight"].copy_(torch.from_numpy(sums.learned.memory))


@dataclass(frozen=True)
class Start:
    """Where a model that learns on begins: one machine, or those of an ensemble.

    Attributes
    ----------
    model : the model with the new values, which predicts as before
    beginnings : of its machines
    epochs : how many were best in the training before
    new, evicted : by column, how many values were added and forgotten
    """

    model: Model
    beginnings: tuple[Beginning, ...]
    epochs: int
    new: Mapping[str, int]
    evicted: Mapping[str, int]

    def of(self, number: int) -> "Start":
        """Return the start of one of the machines."""
        return replace(self, beginnings=(self.beginnings[number % len(self.beginnings)],))

    @property
    def one(self) -> Beginning:
        """Where the only machine begins."""
        (beginning,) = self.beginnings
        return beginning


def started(continuation: Continuation, new_rows: Encoder) -> Start:
    """Return where a model begins that learns on from rows, given what an encoder has learned of these.

    new_rows : see `Encoder.counting`

    Rows whose values were all known get the same predictions as before, to the last bit. A new value begins as an
    unknown one.
    """
    model, renewal = continuation.model, continuation.renewal
    encoder, origin = model.encoder.renewed(new_rows, renewal)
    old, new = model.encoder.fields, encoder.fields
    machines = [_widened(machine, old, new, origin, renewal.kept) for machine in members_of(model.module)]
    module: Scorer = machines[0]
    if isinstance(model.module, Ensemble):
        module = Ensemble(machines, cross_fitted=model.module.cross_fitted)
    beginnings = tuple(
        _beginning(before, machine, old, origin, model)
        for before, machine in zip(members_of(model.module), machines, strict=True)
    )
    added, kept = dict[str, int](), dict[str, int]()
    for of, to in zip(old, new, strict=True):
        own = origin[to.start + FIRST_VALUE : to.stop] - of.start
        added[to.column] = added.get(to.column, 0) + int((own == UNKNOWN).sum()) * (of.kind != "numeric")
        kept[to.column] = kept.get(to.column, 0) + len(np.unique(own[own >= FIRST_VALUE])) - (of.size - FIRST_VALUE)
    evicted = {name: -n for name, n in kept.items() if n < 0 and not _is_refitted(old, new, name)}
    best = model.facts.refit_epochs or model.facts.best_epoch or 1
    widened = replace(model, encoder=encoder, module=module.eval())
    return Start(widened, beginnings, max(best, 1), {name: n for name, n in added.items() if n}, evicted)


def _is_refitted(old: Sequence[Field], new: Sequence[Field], column: str) -> bool:
    return any(of.column == column and of.kind == "numeric" for of in old)


def _widened(
    machine: FactorizationMachine, old: Sequence[Field], new: Sequence[Field], origin: NDArray[np.int64], kept: float
) -> FactorizationMachine:
    """Return a machine with the rows of an encoder that was renewed."""
    with torch.random.fork_rng(devices=[]):  # what it draws at first is not kept
        wider = FactorizationMachine(len(origin), machine.fields, machine.outputs, machine.config)
    rows = torch.from_numpy(origin)
    state = machine.state_dict()
    for name in ("linear.weight", "embedding.weight"):
        if name in state:
            state[name] = state[name][rows]
    wider.target_mean, wider.target_std = state["target_mean"].clone(), state["target_std"].clone()
    wider.load_state_dict(state)
    wider.memory = None if machine.memory is None else _memory(machine.memory, old, new, origin)
    wider.sums = None if machine.sums is None else machine.sums.renewed(old, new, origin, kept)
    return wider.eval()


def _memory(memory: PairMemory, old: Sequence[Field], new: Sequence[Field], origin: NDArray[np.int64]) -> PairMemory:
    """Return what is remembered of value pairs by the numbers that their values have now."""
    level, sizes = memory.levels.of_feature[origin].copy(), memory.levels.sizes.copy()
    places: dict[int, NDArray[np.int64]] = {}
    for f, (of, to) in enumerate(zip(old, new, strict=True)):
        places[f] = places_of(of, to, origin)
        if sizes[f] and not of.ordered:
            level[to.start : to.stop], sizes[f] = np.arange(to.size), to.size
    levels = PairLevels(level, sizes)
    keys = levels.keys(memory.pairs)
    taken = np.flatnonzero(memory.slots != FREE)
    numbers = memory.slots[taken]
    pair = np.searchsorted(memory.keys.offset, numbers, side="right") - 1
    first, second = np.divmod(numbers - memory.keys.offset[pair], memory.keys.width[pair])
    known, slots = [], []
    for p, (i, j) in enumerate(memory.pairs.tolist()):
        own = np.flatnonzero(pair == p)
        a, b = places[i][first[own]], places[j][second[own]]
        left = (a >= 0) & (b >= 0)
        known.append(keys.of(p, a[left], b[left]))
        slots.append(taken[own[left]])
    place = np.concatenate(slots)
    return PairMemory.of(
        levels, keys, np.concatenate(known), memory.effects[place], memory.rows[place], memory.unknown
    )  # fmt: skip


@torch.no_grad()
def _beginning(
    before: FactorizationMachine, machine: FactorizationMachine, old: Sequence[Field], origin: NDArray[np.int64],
    model: Model,
) -> Beginning:  # fmt: skip
    """Return where a machine begins, which was widened from another: without calibration, each row without its bins."""
    state = {name: tensor.clone() for name, tensor in before.state_dict().items()}
    sums, rows = before.sums, torch.from_numpy(origin)
    own: dict[str, Tensor] = {}
    for name in ("linear", "embedding"):
        table = state.get(f"{name}.weight")
        if table is None:
            continue
        if sums is not None and sums.learned is not None:
            bins = torch.from_numpy(getattr(sums.learned, name))
            for f in sums.rates:
                of_features = torch.from_numpy(sums.bins_of(f, len(table)) - len(table))
                table[old[f].start : old[f].stop] -= bins[of_features].sum(1)
        own[name] = table[rows]
    with torch.random.fork_rng(devices=[]):
        bare = FactorizationMachine(len(origin), machine.fields, machine.outputs, machine.config)
    state = machine.state_dict()
    if model.task.is_classification:
        state["target_mean"], state["target_std"] = torch.zeros(()), torch.ones(())
    state["intercept"] = state["intercept"] - math.log(model.config.train.negative_rate)
    bare.load_state_dict(state)
    bare.memory, bare.sums = machine.memory, machine.sums
    return Beginning(bare, own["linear"], own.get("embedding"))


# What a model that learns on keeps, besides all settings of its data and of its formula.
_FIXED = (
    "task", "rates", "rate_levels", "class_weight", "n_models", "negative_rate", "warm_start_from", "base_rate_start",
    "n_seeds",
)  # fmt: skip


def settings_of(model: Model, config: Config) -> Config:
    """Return the settings with which a model learns on: where they say "auto", what was chosen when it was new.

    Raises ConfigError where settings differ that it must keep.
    """
    before, config = _with_chosen(model.config, model), _with_chosen(config, model)
    for section, own in (("data", None), ("model", None), ("train", _FIXED)):
        was, now = (dict(getattr(of, section)) for of in (before, config))
        for name in was if own is None else own:
            if was[name] != now[name]:
                raise ConfigError(
                    f"Setting '{name}' is {now[name]!r}, but the model was trained with {was[name]!r}: a model that "
                    "learns on keeps it. Leave it out, or train anew."
                )
    return config


def _with_chosen(config: Config, model: Model) -> Config:
    """Return settings with what was chosen in place of "auto"."""
    chosen = model.facts.chosen or {}
    sections = {
        name: getattr(config, name).model_copy(update={
            key: value for key, value in chosen.items() if getattr(getattr(config, name), key, None) == "auto"
        }) for name in ("model", "train")
    }  # fmt: skip
    return config.model_copy(update=sections)


def chosen_of(asked: Config, taken: Config) -> dict[str, Any]:
    """Return the settings that were "auto", as they were chosen."""
    return {
        name: value for section in ("model", "train") for name, value in getattr(taken, section)
        if getattr(getattr(asked, section), name) == "auto" and value != "auto"
    }  # fmt: skip
