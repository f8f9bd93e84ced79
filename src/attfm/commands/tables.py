"""The tables that commands are given: bundled ones by name, files by path, databases by URI and query."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attfm.commands.passwords import with_password
from attfm.config import Reading
from attfm.data.datasets import DATASETS
from attfm.data.schema import Schema
from attfm.data.sources.database_uri import is_database
from attfm.data.sources.file_set import FileSet
from attfm.data.sources.files import DataFile
from attfm.data.sources.source import Source, open_source
from attfm.data.training_table import column_of, weights_of
from attfm.errors import ConfigError, DataWarning, SchemaError, TargetError, absent, listed, no_column
from attfm.model.bundle import Model

LIBSVM_LABEL = "label"  # the column that holds the labels of a libsvm or libfm file


def open_table(
    data: str, reading: Reading, stored: Mapping[str, pa.DataType] | None = None, *, query: str | None = None,
    skip_bad_files: bool = False,
) -> Source:  # fmt: skip
    """Return a bundled table by its name, files by path, or rows of a database; see `open_source` for the options.

    Files that are left out are told by a DataWarning.
    """
    if data in DATASETS and query is None:
        return open_source(DATASETS[data].path, stored=stored)
    source = open_source(with_password(data), reading, query=query, stored=stored, skip_bad_files=skip_bad_files)
    for sentence in source.skipped:
        warnings.warn(f"Left out: {sentence}", DataWarning, stacklevel=2)
    return source


def open_as(schema: Schema, data: str, reading: Reading, *, query: str | None = None) -> Source:
    """Return a table that is read as the training table was, but for the options that are given again."""
    return open_table(data, schema.reading.updated(reading), schema.stored_types, query=query)


def open_inputs(model: Model, data: str, reading: Reading, *, query: str | None = None) -> Source:
    """Return a table that holds all columns that a model reads."""
    source = open_as(model.schema, data, reading, query=query)
    check_columns(source, model.input_names, why="of the training table")
    return source


def target_of(data: str, source: Source, target: str | None) -> str:
    """Return the name of the target column: as given, or that of a bundled table or a libsvm file."""
    names = source.schema.names
    if target is None and data in DATASETS:
        target = DATASETS[data].target
    if target is None and not is_database(data) and FileSet.locate(data) is None:
        target = LIBSVM_LABEL if DataFile.locate(data).kind == "libsvm" else None
    if target is None:
        raise ConfigError(f"Which column of {source.name} is to be predicted? Give --target, one of {listed(names)}.")
    if target not in names:
        raise TargetError(no_column("target", target, names, source.name))
    return target


def labelled(model: Model, source: Source, target: str | None) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the labels of a table's rows and their weights (rows,), which count rows and classes as training did.

    The labels are class codes, or the values of a regression. `target` is their column (None: that of the training);
    without the column of weights all rows weigh the same.
    """
    name = model.target.name if target is None else target
    if target is not None and name not in source.schema.names:
        raise TargetError(no_column("target", name, source.schema.names, source.name))
    if name not in source.schema.names:
        raise TargetError(
            f"{source.name} has no column '{name}', the target that the predictions are compared with: add it, "
            "or use 'attfm predict'. Where it has another name, give that by --target COLUMN."
        )
    reading = source.reading or model.schema.reading
    labels = replace(model.target, name=name).encode(column_of(source, name), reading)
    given = weights_of(source, model.schema.weight) if model.schema.weight in source.schema.names else None
    weight = np.ones(len(labels)) if given is None else given
    per_class = model.facts.class_weights
    return labels, weight if per_class is None else weight * np.asarray(per_class)[labels]


def check_columns(source: Source, needed: Sequence[str], *, why: str) -> None:
    """Raise SchemaError that lists all columns of `needed` that are absent; `why` ends its first sentence."""
    lacking = absent(needed, source.schema.names)
    if lacking:
        raise SchemaError(
            f"{source.name} lacks {len(lacking)} of the {len(needed)} columns {why}: {', '.join(lacking)}. Add them."
        )
