"""The tables that commands are given: bundled ones by name, files by path."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfm.commands.options import Reading
from attfm.data.datasets import DATASETS
from attfm.data.sources.files import DataFile
from attfm.data.sources.source import Source, open_source
from attfm.data.training_table import column_of, weights_of
from attfm.errors import ConfigError, SchemaError, TargetError, absent, nearest
from attfm.model.bundle import Model

LIBSVM_LABEL = "label"  # the column that holds the labels of a libsvm or libfm file


def open_table(data: str, reading: Reading) -> Source:
    """Return a bundled table by its name, or a file or folder by its path."""
    if data in DATASETS:
        return open_source(DATASETS[data].path)
    return open_source(
        data, names=reading.names, separator=reading.separator, null_values=reading.null_values or None,
        encoding=reading.encoding, skip_rows=reading.skip_rows,
    )  # fmt: skip


def open_inputs(model: Model, data: str, reading: Reading) -> Source:
    """Return a table that holds all columns that a model reads.

    Raises
    ------
    SchemaError : a column is absent
    """
    source = open_table(data, reading)
    check_columns(source, model.input_names, why="of the training table")
    return source


def target_of(data: str, source: Source, target: str | None) -> str:
    """Return the name of the target column: as given, or that of a bundled table or a libsvm file.

    Raises
    ------
    ConfigError : it was not given and can't be known
    TargetError : there is no such column
    """
    if target is None and data in DATASETS:
        target = DATASETS[data].target
    if target is None and data not in DATASETS and DataFile.locate(data).kind == "libsvm":
        target = LIBSVM_LABEL
    if target is None:
        raise ConfigError(f"Which column of {source.name} is to be predicted? Give --target, one of {_names(source)}.")
    if target not in source.schema.names:
        raise _no_target(target, source)
    return target


def labelled(model: Model, source: Source, target: str | None) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the labels of a table's rows and their weights, which count rows and classes as training did.

    Parameters
    ----------
    model : Model, what the labels are compared with
    source : Source, the table; without the column of weights all its rows weigh the same
    target : str or None, the column of labels; None: the one that the model was trained on

    Returns
    -------
    labels : int64 or float64 (rows,), class codes, or the values of a regression
    weight : float64 (rows,), at least 0

    Raises
    ------
    TargetError : there is no such column, or a label is missing or was not seen in training
    DataError : a weight is no number, missing, negative or infinite
    """
    name = model.target.name if target is None else target
    if target is not None and name not in source.schema.names:
        raise _no_target(name, source)
    if name not in source.schema.names:
        raise TargetError(
            f"{source.name} has no column '{name}', the target that the predictions are compared with: add it, "
            "or use 'attfm predict'. Where it has another name, give that by --target COLUMN."
        )
    labels = replace(model.target, name=name).encode(column_of(source, name))
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


def _no_target(name: str, source: Source) -> TargetError:
    hint = nearest(name, source.schema.names)
    return TargetError(f"There is no target column '{name}' in {source.name}{hint}. Its columns: {_names(source)}.")


def _names(source: Source) -> str:
    names = source.schema.names
    return ", ".join(f"'{name}'" for name in names[:20]) + (", ..." if len(names) > 20 else "")
