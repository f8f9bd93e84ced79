"""attfm: attentional factorization machines for tables."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from attfm.errors import (
    AttfmError,
    CacheError,
    ConfigError,
    DataError,
    DataWarning,
    MissingExtraError,
    RunFolderError,
    SchemaError,
    SourceError,
    TargetError,
    TrainingError,
)

if TYPE_CHECKING:
    from attfm.config import Config, DataConfig, ModelConfig, Reading, TrainConfig
    from attfm.data.datasets import load_dataset
    from attfm.data.schema import Column, Schema
    from attfm.data.split_column import GroupSplit, TimeSplit
    from attfm.estimators import AFMClassifier, AFMRegressor, load
    from attfm.explain.effect import Effect
    from attfm.explain.explanation import Explanation
    from attfm.explain.faithfulness import Deletion, Faithfulness
    from attfm.explain.global_explanation import GlobalExplanation, Importance, PairSurface, Shape
    from attfm.explain.stability import Stability
    from attfm.explain.what_if import Change, Changes
    from attfm.model.bundle import Model
    from attfm.model.calibration import Calibration, Curve
    from attfm.model.facts import RunFacts, TuningFacts
    from attfm.serve.ranking.catalogue import Catalogue
    from attfm.serve.ranking.ranker import Ranker, Ranking
    from attfm.train.plan import Plan

__all__ = [
    "AFMClassifier",
    "AFMRegressor",
    "AttfmError",
    "CacheError",
    "Calibration",
    "Catalogue",
    "Change",
    "Changes",
    "Column",
    "Config",
    "ConfigError",
    "Curve",
    "DataConfig",
    "DataError",
    "DataWarning",
    "Deletion",
    "Effect",
    "Explanation",
    "Faithfulness",
    "GlobalExplanation",
    "GroupSplit",
    "Importance",
    "MissingExtraError",
    "Model",
    "ModelConfig",
    "PairSurface",
    "Plan",
    "Ranker",
    "Ranking",
    "Reading",
    "RunFacts",
    "RunFolderError",
    "Schema",
    "SchemaError",
    "Shape",
    "SourceError",
    "Stability",
    "TargetError",
    "TimeSplit",
    "TrainConfig",
    "TrainingError",
    "TuningFacts",
    "load",
    "load_dataset",
]

# Loaded at first use, so that `attfm --help` does not wait for torch.
_HOMES = {
    "attfm.config": ("Config", "DataConfig", "ModelConfig", "Reading", "TrainConfig"),
    "attfm.data.datasets": ("load_dataset",),
    "attfm.data.schema": ("Column", "Schema"),
    "attfm.data.split_column": ("GroupSplit", "TimeSplit"),
    "attfm.estimators": ("AFMClassifier", "AFMRegressor", "load"),
    "attfm.explain.effect": ("Effect",),
    "attfm.explain.explanation": ("Explanation",),
    "attfm.explain.faithfulness": ("Deletion", "Faithfulness"),
    "attfm.explain.global_explanation": ("GlobalExplanation", "Importance", "PairSurface", "Shape"),
    "attfm.explain.stability": ("Stability",),
    "attfm.explain.what_if": ("Change", "Changes"),
    "attfm.model.bundle": ("Model",),
    "attfm.model.calibration": ("Calibration", "Curve"),
    "attfm.model.facts": ("RunFacts", "TuningFacts"),
    "attfm.serve.ranking.catalogue": ("Catalogue",),
    "attfm.serve.ranking.ranker": ("Ranker", "Ranking"),
    "attfm.train.plan": ("Plan",),
}
_LAZY = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("attfm")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'attfm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
