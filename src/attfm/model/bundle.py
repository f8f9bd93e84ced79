"""One object from raw columns to score: schema, encoder, target, module and settings."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attfm.config import Config, Reading
from attfm.data.batch import Batch
from attfm.data.encoder import Encoder
from attfm.data.schema import Schema
from attfm.data.sources.frame_columns import FrameColumns
from attfm.data.sources.source import Source, open_source
from attfm.data.target import Target
from attfm.data.unknown_values import UnknownValues
from attfm.errors import ConfigError
from attfm.model.calibration import Calibration
from attfm.model.derived import Derived
from attfm.model.ensemble import Ensemble, Scorer
from attfm.model.facts import RunFacts
from attfm.model.frame_encoder import FrameEncoder, NotStanding
from attfm.model.lookup_scorer import LookupScorer, field_ranges
from attfm.model.modules import FactorizationMachine
from attfm.model.task import Task, task_of
from attfm.model.threshold import decision_threshold
from attfm.ops import cpu

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EncodedRows:
    """Some rows of a table, encoded.

    Attributes
    ----------
    first : int, number of the first row in the table, from 0
    batch : Batch, the rows
    columns : pyarrow.RecordBatch, the raw columns that were read
    """

    first: int
    batch: Batch
    columns: pa.RecordBatch


@dataclass(frozen=True)
class Model:
    """A trained model with all that it needs to score raw columns; built once, never changed.

    Attributes
    ----------
    schema, encoder, target, module, config : the parts; the module is one machine, or an ensemble of them
    facts : RunFacts, where the rows came from, and how training went
    metrics : by part ("valid", "test") and name, what was measured after training
    history : one dictionary for each epoch, the learning curve; of an ensemble those of its members, by "model" from 1
    background : arrays by name
        Summary of the training rows that `attfm.explain` made and reads; empty where there is none.
    calibration : attfm.Calibration
        What stands between logit and probability: in the module already where it is linear, else in `task`.
    """

    schema: Schema
    encoder: Encoder
    target: Target
    module: Scorer
    config: Config
    facts: RunFacts = field(default_factory=RunFacts)
    metrics: Mapping[str, dict[str, float]] = field(default_factory=dict)
    history: Sequence[dict[str, Any]] = ()
    background: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)

    @cached_property
    def task(self) -> Task:
        """What is predicted, and how logits become probabilities and decisions, calibration included."""
        return self.calibration.applied_to(task_of(self.target))

    @property
    def threshold(self) -> float:
        """Probability above which the second of two classes is decided, as in training."""
        return self.config.train.threshold

    @property
    def input_names(self) -> list[str]:
        """Names of the columns that a table must have."""
        return [column.name for column in self.schema.inputs]

    def open(self, data: object) -> Source:
        """Return whatever `attfm.data.sources.source.open_source` reads, text as that of the training table."""
        return open_source(data, self.schema.reading, stored=self.schema.stored_types)

    def encode(self, source: Source, keep: Sequence[str] = ()) -> Iterator[EncodedRows]:
        """Yield the rows of a table, encoded, one record batch after the other.

        A DataWarning is given at the end where a column's values are nearly all unknown, though few were in training.

        Parameters
        ----------
        keep : sequence of str, columns that are read besides the inputs
        """
        first, unknown = 0, UnknownValues(self.encoder)
        try:
            for columns in source.batches(self.columns_with(keep)):
                rows = self.encode_batch(columns, first, source.reading)
                unknown.observe(rows.batch, columns, first)
                yield rows
                first += columns.num_rows
        except GeneratorExit:  # whoever reads has rows enough
            unknown.warn()
            raise
        unknown.warn()

    def columns_with(self, keep: Sequence[str]) -> list[str]:
        """Return the names of the inputs and of other columns, each once."""
        return list(dict.fromkeys([*self.input_names, *keep]))

    def encode_batch(self, columns: pa.RecordBatch, first: int, reading: Reading | None) -> EncodedRows:
        """Return some rows of a table, encoded; the first of them has the number `first` there."""
        return EncodedRows(first, self.encoder.transform(columns, first_row=first, reading=reading), columns)

    def logits_of(self, batch: Batch) -> Floats:
        """Return the logits of encoded rows, or the predictions of a regression; float64 (batch, outputs).

        Accounts add up to them. `task` makes probabilities and decisions of them.
        """
        # Tables and compiled kernels give a row the same bits whatever rows are beside it.
        is_native = self.module.scores_natively
        looked_up = self.lookup.logits(batch) if is_native else None
        if looked_up is not None:
            return looked_up
        logits: Floats = (self.module if is_native else self.scorer).predict(batch).numpy().astype(np.float64)
        return logits

    @cached_property
    def lookup(self) -> LookupScorer:
        """What scores by tables of the module's pairs, where the model is worth them."""
        return LookupScorer(self.module, field_ranges(self.encoder))

    @property
    def scorer(self) -> Scorer:
        """The module in float64: what explanations are checked against, and what scores where the kernels can't."""
        return self._in_double.current()

    @cached_property
    def _in_double(self) -> Derived[Scorer]:
        return Derived(self.module, _in_double)

    def logits(self, data: object) -> Floats:
        """Return (rows, outputs) logits of a table, or (rows, 1) predictions of a regression.

        Parameters
        ----------
        data : object, whatever `attfm.data.sources.source.open_source` reads; columns by name, in any order
        """
        frame = FrameColumns.of(data, self.schema.reading.names)
        logits = None if frame is None else self.frame_logits(frame)
        if logits is not None:
            return logits
        parts = [self.logits_of(rows.batch) for rows in self.encode(self.open(data))]
        return np.concatenate(parts) if parts else np.empty((0, self.module.outputs))

    def frame_logits(self, frame: FrameColumns) -> Floats | None:
        """Return the `logits` of a frame, read where it stands in memory; None where it has to be opened.

        None too where there is anything to say about its values: no error is raised here, nothing is warned of.
        """
        if self.frames is None:
            return None
        try:
            parts = [self.logits_of(batch) for batch in self.frames.batches(frame)]
        except (NotStanding, pa.ArrowException):
            return None
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @cached_property
    def frames(self) -> FrameEncoder | None:
        """What encodes frames by the compiled kernels; None where they are not installed."""
        return FrameEncoder(self.encoder) if cpu.compiled is not None else None

    def decide(self, logits: Floats, threshold: float | None = None) -> NDArray[np.int64]:
        """Return the decision about each row, (rows,) class codes; threshold : None is that of training."""
        return self.task.decide(logits, self.threshold if threshold is None else threshold)

    def predict_proba(self, data: object) -> Floats:
        """Return probabilities, (rows, classes) in the order of `target.classes`; of a regression the predictions."""
        return self.task.scores(self.logits(data))

    def predict(self, data: object, *, threshold: float | None = None) -> NDArray[Any]:
        """Return the decided labels, or the predictions of a regression; (rows,).

        Parameters
        ----------
        threshold : float or None, probability above which the second of two classes is decided; None: that of training

        Raises
        ------
        ConfigError : the threshold is no number between 0 and 1, or the model does not decide by one
        """
        threshold = decision_threshold(threshold, task=self.task.name, usual=self.threshold)
        logits = self.logits(data)
        if not self.task.is_classification:
            return self.task.scores(logits)
        codes = pa.array(self.decide(logits, threshold))
        labels: NDArray[Any] = pa.array(list(self.task.classes)).take(codes).to_numpy(zero_copy_only=False)
        return labels

    def score_table(
        self, source: Source, *, keep: Sequence[str] = (), threshold: float | None = None
    ) -> Iterator[pa.Table]:
        """Yield the scores of a table, one record batch after the other: kept columns, prediction, probabilities.

        Parameters
        ----------
        keep : sequence of str, columns of the table that stand before the scores
        threshold : float or None, as in `predict`; what does not decide by one has no use for it

        Raises
        ------
        ConfigError : the threshold is no number between 0 and 1
        """
        asked = threshold if self.task.name == "binary" else None
        threshold = decision_threshold(asked, task=self.task.name, usual=self.threshold)
        for rows in self.encode(source, keep):
            yield self.scores_of(rows, keep, threshold)

    def scores_of(self, rows: EncodedRows, keep: Sequence[str], threshold: float) -> pa.Table:
        """Return the scores of some rows, beside the columns that are kept."""
        kept = {name: rows.columns.column(name) for name in keep}
        return pa.table({**kept, **self.task.score_columns(self.logits_of(rows.batch), threshold)})


def model_given(given: object) -> Model:
    """Return a model that was given as one; raise ConfigError where it is something else."""
    if not isinstance(given, Model):
        raise ConfigError(
            f"A {type(given).__name__} is no attfm.Model: give one, such as model_ of an estimator that is fitted or "
            "loaded by attfm.load(RUN)."
        )
    return given


def build_module(encoder: Encoder, target: Target, config: Config) -> FactorizationMachine:
    """Return an untrained module of the size that the encoder and the target ask for."""
    task = task_of(target)
    return FactorizationMachine(
        encoder.n_features, len(encoder.fields), len(task.outputs), config.model.of_task(task.name)
    )


def build_ensemble(
    encoder: Encoder, target: Target, config: Config, *, members: int, cross_fitted: bool = True
) -> Ensemble:
    """Return so many untrained modules that predict as one; see `Ensemble`."""
    return Ensemble([build_module(encoder, target, config) for _ in range(members)], cross_fitted=cross_fitted)


def _in_double(module: Scorer) -> Scorer:
    # In float64 a row's score does not depend on the rows beside it by more than 1e-15: the matrix products of torch
    # sum in another order for another number of rows.
    return copy.deepcopy(module).double()
