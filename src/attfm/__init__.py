"""attfm: attentional factorization machines for tables."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from attfm.errors import (
    AttfmError,
    ConfigError,
    DataError,
    MissingExtraError,
    RunFolderError,
    SchemaError,
    SourceError,
    TargetError,
    TrainingError,
)

if TYPE_CHECKING:
    from attfm.data.datasets import load_dataset
    from attfm.estimators import AFMClassifier, AFMRegressor, load

__all__ = [
    "AFMClassifier",
    "AFMRegressor",
    "AttfmError",
    "ConfigError",
    "DataError",
    "MissingExtraError",
    "RunFolderError",
    "SchemaError",
    "SourceError",
    "TargetError",
    "TrainingError",
    "load",
    "load_dataset",
]

# Loaded at first use, so that `attfm --help` does not wait for torch.
_LAZY = {
    "AFMClassifier": "attfm.estimators",
    "AFMRegressor": "attfm.estimators",
    "load": "attfm.estimators",
    "load_dataset": "attfm.data.datasets",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("attfm")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'attfm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
