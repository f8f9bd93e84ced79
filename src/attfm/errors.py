"""Everything that attfm raises on purpose.

AttfmError
├── DataError (ValueError)      a file, a column or a value is not what it should be
│   ├── SourceError             a file can't be read, or is not the table it should be
│   ├── SchemaError             a column is absent, doubled or of the wrong kind
│   └── TargetError             the target is absent, constant, missing or of the wrong type
├── ConfigError (ValueError)    a setting is unknown, of the wrong type or out of range
├── RunFolderError              a saved model is damaged, incomplete or of a newer format
├── CacheError                  encoded rows on disk are damaged while they are read
├── TrainingError               training can't go on (the loss is not finite, say)
└── MissingExtraError (ImportError)   an optional package is not installed

DataWarning (UserWarning)       data that can be used, but should be looked at

Each message is one or two sentences: what is wrong, where, and what to do.
The command line prints it and exits with code 2 (1 for TrainingError and MissingExtraError: the run failed).
"""

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches


class AttfmError(Exception):
    """Base of all errors that attfm raises on purpose."""


class DataError(AttfmError, ValueError):
    """A file, a column or a value is not what it should be."""


class SourceError(DataError):
    """A file can't be read, or is not the table that it should be."""


class SchemaError(DataError):
    """A column is absent, doubled, or of another kind than the schema says."""


class TargetError(DataError):
    """The target is absent, constant, has missing values or is of the wrong type."""


class DataWarning(UserWarning):
    """Data that can be read, but that most likely means something else than it did in training, or is not measured."""


class ConfigError(AttfmError, ValueError):
    """A setting is unknown, of the wrong type or out of its range."""


class RunFolderError(AttfmError):
    """A saved model is damaged, incomplete or written by a newer version."""


class CacheError(AttfmError):
    """Encoded rows on disk are not what was written there."""


class TrainingError(AttfmError):
    """Training can't go on, for example because the loss is no longer finite."""


class MissingExtraError(AttfmError, ImportError):
    """An optional package is not installed; the message gives the pip command."""


def near_names(name: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return at most so many of the known names that are like `name`, the nearest first; case does not count."""
    folded = {other.casefold(): other for other in known}
    return [folded[other] for other in get_close_matches(name.casefold(), folded, n=most, cutoff=cutoff)]


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the known name nearest to `name`, or "" where none is near."""
    return "".join(f" (did you mean '{other}'?)" for other in near_names(name, known))


def listed(names: Sequence[str]) -> str:
    """Return names for a message: quoted, and twenty at most."""
    return ", ".join(f"'{name}'" for name in names[:20]) + (", ..." if len(names) > 20 else "")


def no_column(role: str, name: str, known: Sequence[str], table: str) -> str:
    """Return the sentences about a column of this role ("target") that a table lacks."""
    return f"There is no {role} column '{name}' in {table}{nearest(name, known)}. Its columns: {listed(known)}."


def absent(names: Iterable[str], known: Collection[str]) -> list[str]:
    """Return the names that are not known, each quoted and with the nearest one that is."""
    return [f"'{name}'{nearest(name, known)}" for name in names if name not in known]
