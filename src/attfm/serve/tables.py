"""Scoring by lookup: a trained model compiled to tables, for processes that only serve.

A compiled model needs NumPy and attfm's kernels only, neither torch nor Arrow.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attfm.errors import ConfigError, DataError, DataWarning, RunFolderError
from attfm.model.lookup_arrays import BUDGET
from attfm.model.run_files import check_files, folder_path, read_settings
from attfm.model.threshold import decision_threshold
from attfm.ops.lookup import Lookup
from attfm.serve import table_file
from attfm.serve.column_facts import row_encoder
from attfm.serve.decisions import Label, Link
from attfm.serve.rows import Encoded

if TYPE_CHECKING:
    from attfm.model.bundle import Model

Floats = NDArray[np.float64]
# What a compiled model is made from; texts for people may change.
_MADE_FROM = ("schema.json", "vocabulary.arrow", "weights.safetensors", "memory.safetensors", "calibration.json")


@dataclass(frozen=True)
class CompiledField:
    """A field of a compiled model; see `attfm.data.codecs.codec.Field`."""

    name: str
    column: str
    kind: str
    start: int
    size: int
    ordered: bool = False


class CompiledModel:
    """A model that scores rows of Python values by lookup; `compile` and `load` make one.

    Attributes
    ----------
    columns : tuple of dict, the input columns: name, kind, and what the schema says of each
    fields : tuple of CompiledField, those of the encoded row
    target : str; task : "binary", "multiclass" or "regression"
    classes : tuple of labels, class_names : tuple of str, in the order of their codes; empty of a regression
    threshold : float, probability above which the second of two classes is decided
    """

    def __init__(self, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        self.facts = dict(facts)
        self._arrays = dict(arrays)
        self._link = Link.of(facts["link"])
        self.columns: tuple[dict[str, Any], ...] = tuple(column["told"] for column in facts["columns"])
        self.fields = tuple(CompiledField(**field) for field in facts["fields"])
        self._row_shape = (len(self.fields),)
        self._encoder = row_encoder(facts, arrays)
        self._lookup = Lookup({
            name.removeprefix("lookup."): array for name, array in arrays.items() if name.startswith("lookup.")
        })  # fmt: skip

    @property
    def input_names(self) -> list[str]:
        """Names of the columns that a row must have."""
        return list(self._encoder.names)

    @property
    def task(self) -> str:
        """What is predicted: "binary", "multiclass" or "regression"."""
        return self._link.task

    @property
    def target(self) -> str:
        """Name of what is predicted."""
        return self._link.target

    @property
    def classes(self) -> tuple[Label, ...]:
        """The labels, in the order of their codes; none of a regression."""
        return self._link.classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """The labels as they stood in the training table."""
        return self._link.class_names

    @property
    def outputs(self) -> tuple[str, ...]:
        """What each output is of: the second of two classes, each of more, or the target."""
        return self._link.outputs

    @property
    def threshold(self) -> float:
        """Probability above which the second of two classes is decided, as in training."""
        return self._link.threshold

    def levels(self, field: int) -> list[str]:
        """Return what people call a field's features, from its start: "unknown", "missing", "cook", ..."""
        if not isinstance(field, int | np.integer) or not 0 <= field < len(self.fields):
            raise ConfigError(f"There is no field {field!r:.60}: give the number of one, 0 to {len(self.fields) - 1}.")
        own = self.facts["columns"][self._column_number(field)]
        if "labels" in own:
            return ["unknown", "missing", *own["labels"][own["fields"].index(field)]]
        values: Any = self._encoder.columns[self._column_number(field)]
        return ["unknown", "missing", *(values.values.label(n) for n in range(values.values.size))]

    def _column_number(self, field: int) -> int:
        return next(n for n, own in enumerate(self.facts["columns"]) if field in own["fields"])

    def encode(self, rows: object, *, warn: bool = True) -> Encoded:
        """Return the features of some rows: see `RowEncoder.encode`."""
        return self._encoder.encode(rows, warn=warn)

    def logits(self, rows: object) -> Floats:
        """Return the logits of rows, (rows, outputs), or the predictions of a regression.

        Parameters
        ----------
        rows : a dict of values (one row), a sequence of such dicts, or a dict of columns (lists or arrays)
        """
        ids = self._encoder.quick_ids(rows) if rows.__class__ is dict else None
        return self.logits_of(self.encode(rows)) if ids is None else self._logits_of_row(ids)

    def logits_of(self, encoded: Encoded | NDArray[np.integer[Any]]) -> Floats:
        """Return the logits of encoded rows: what `encode` returned, or ids, (rows, fields) or (fields,)."""
        if isinstance(encoded, Encoded):
            return self._lookup.logits(encoded.ids, encoded.values, encoded.offsets)
        if encoded.__class__ is np.ndarray and encoded.shape == self._row_shape and encoded.dtype == np.int32:
            return self._logits_of_row(encoded.tolist())
        ids = np.atleast_2d(np.asarray(encoded))
        if ids.ndim != 2 or ids.shape[1] != len(self.fields) or ids.dtype.kind not in "iu":
            raise DataError(
                f"Encoded rows are integers of (rows, {len(self.fields)}), and these are {ids.dtype} {ids.shape}."
            )
        # As int32 those beyond it would be others.
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) <= np.iinfo(np.int32).max:
            raise DataError("These are no encoded rows of this model: ids must be features of their fields.")
        return self._lookup.logits(np.ascontiguousarray(ids, np.int32))

    def _logits_of_row(self, ids: list[int]) -> Floats:
        logit = self._lookup.row(ids)
        return np.array([logit]) if logit.__class__ is list else np.array([[logit]])

    def predict_proba(self, rows: object) -> Floats:
        """Return probabilities, (rows, classes) in the order of `classes`; of a regression the predictions, (rows,)."""
        return self._link.scores(self.logits(rows))

    def predict_proba_of(self, encoded: Encoded | NDArray[np.integer[Any]]) -> Floats:
        """Return the probabilities of encoded rows, as `logits_of` takes them."""
        return self._link.scores(self.logits_of(encoded))

    def probabilities(self, logits: Floats) -> Floats:
        """Return what `predict_proba` makes of logits."""
        return self._link.scores(logits)

    def predict(self, rows: object, *, threshold: float | None = None) -> NDArray[Any]:
        """Return the decided labels, or the predictions of a regression; (rows,).

        Parameters
        ----------
        threshold : float or None, probability above which the second of two classes is decided; None: that of training

        Raises
        ------
        ConfigError : the threshold is no number between 0 and 1, or the model does not decide by one
        """
        threshold = decision_threshold(threshold, task=self.task, usual=self.threshold)
        logits = self.logits(rows)
        if not self._link.is_classification:
            return self._link.scores(logits)
        return self._link.labels(self._link.decide(logits, threshold))

    def save(self, folder: str | Path) -> None:
        """Write the compiled model into a run folder, where `load` finds it; raise RunFolderError where that fails."""
        path = folder_path(folder)
        try:
            table_file.write(path, self.facts, self._arrays)
        except OSError as error:
            raise RunFolderError(f"Can't write into '{folder}': {error.strerror}. Choose another.") from None


def compile(model: "Model", budget: int = BUDGET) -> CompiledModel:  # noqa: A001
    """Return the model as tables, as it is now: what becomes of its weights later does not change them.

    Parameters
    ----------
    model : attfm.Model
    budget : int, bytes that pair tables may take together; the pairs whose tables don't fit are computed

    Raises
    ------
    ConfigError : it is no model, or the budget no number of bytes
    """
    from attfm.model.bundle import model_given
    from attfm.serve.compiling import compiled_parts

    model = model_given(model)
    if isinstance(budget, bool) or not isinstance(budget, int | np.integer) or budget < 0:
        raise ConfigError(f"budget is {budget!r}: give a number of bytes, 0 or more.")
    return CompiledModel(*compiled_parts(model, budget))


def load(folder: str | Path, budget: int = BUDGET) -> CompiledModel:
    """Return the compiled model of a run folder; it is made, and written there, where it is not there yet.

    Making it needs torch and Arrow, reading it does not. One that is damaged or of other files is made again.

    Raises
    ------
    RunFolderError : the folder is absent, incomplete, damaged or of a newer format
    """
    path = folder_path(folder)
    settings = read_settings(path)
    made_from = {name: digest for name, digest in settings["sha256"].items() if name in _MADE_FROM}
    try:
        saved = table_file.read(path)
    except table_file.DamagedFile as error:
        warnings.warn(f"In the run folder '{path}' {error}: it is made again.", DataWarning, stacklevel=2)
        saved = None
    if saved is not None and saved.facts["made_from"] == made_from and saved.facts["budget"] == budget:
        check_files(path, made_from)
        return CompiledModel(saved.facts, saved.arrays)
    from attfm.model.run_folder import load_model

    compiled = compile(load_model(path), budget)
    compiled.facts["made_from"] = made_from
    try:
        compiled.save(path)
    except RunFolderError as error:  # a read-only folder serves too, it only starts more slowly
        warnings.warn(f"The tables are made again at the next start: {error}", DataWarning, stacklevel=2)
    return compiled
