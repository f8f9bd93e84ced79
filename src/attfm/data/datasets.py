"""The bundled tables: UCI Adult (Becker and Kohavi 1996, CC BY 4.0)."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from attfm.errors import SourceError

_SPLIT_SEED = 1234


@dataclass(frozen=True)
class Dataset:
    """A bundled table: its file in the package, its target column, and on what terms it may be used."""

    name: str
    file: str
    target: str
    rows: int
    about: str
    licence: str

    @property
    def path(self) -> Path:
        """Where the Parquet file lies in the installed package."""
        return Path(str(files("attfm.data") / self.file))

    def table(self) -> pa.Table:
        """Return all rows."""
        return pa.parquet.read_table(self.path)


_LICENCE = "CC BY 4.0; Becker, B. and Kohavi, R. (1996), UCI Machine Learning Repository, doi:10.24432/C5XW20"
DATASETS: Mapping[str, Dataset] = MappingProxyType(
    {
        "adult": Dataset(
            "adult", "adult.parquet", "income", 32_561,
            "UCI Adult, training file: does a person earn more than 50,000 dollars a year? Census of 1994.", _LICENCE,
        ),
        "adult-test": Dataset(
            "adult-test", "adult-test.parquet", "income", 16_281, "UCI Adult, the official test file.", _LICENCE
        ),
    }
)  # fmt: skip


def load_dataset(name: str) -> pa.Table:
    """Return a bundled table with its target column.

    Parameters
    ----------
    name : {"adult", "adult-test"}

    Raises
    ------
    SourceError : there is no bundled table of that name

    Examples
    --------
    >>> load_dataset("adult").num_rows
    32561
    """
    if name not in DATASETS:
        raise SourceError(f"There is no bundled table '{name}': there are {', '.join(DATASETS)}.")
    return DATASETS[name].table()


def adult_split(labels: NDArray[np.str_]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the row numbers of the 60/20/20 split that all figures on Adult use: training, validation, test.

    It is stratified by `labels`, the column income.
    """
    from sklearn.model_selection import train_test_split  # a second to load, and reading a table does without

    rest, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=_SPLIT_SEED)
    train, valid = train_test_split(rest, test_size=0.25, stratify=labels[rest], random_state=_SPLIT_SEED)
    return train, valid, test
