"""Run folders as estimators again."""

from pathlib import Path

from attfm.estimators.classifier import AFMClassifier
from attfm.estimators.regressor import AFMRegressor
from attfm.model.run_folder import load_model

_BY_TASK: dict[str, type[AFMClassifier | AFMRegressor]] = {
    "binary": AFMClassifier,
    "multiclass": AFMClassifier,
    "regression": AFMRegressor,
}


def load(folder: str | Path) -> AFMClassifier | AFMRegressor:
    """Return the estimator that was saved in a run folder; its predictions are bit for bit the same.

    Raises
    ------
    RunFolderError : the folder is absent, incomplete, damaged or of a newer format
    """
    model = load_model(folder)
    return _BY_TASK[model.task.name]._of(model)
