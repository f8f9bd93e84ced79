"""Run folders as estimators again."""

from pathlib import Path

import numpy as np

from attfm.estimators.classifier import AFMClassifier
from attfm.estimators.regressor import AFMRegressor
from attfm.model.bundle import Model


def load(folder: str | Path) -> AFMClassifier | AFMRegressor:
    """Return the estimator that was saved in a run folder; its predictions are bit for bit the same.

    Raises
    ------
    RunFolderError : the folder is absent, incomplete, damaged or of a newer format
    """
    model = Model.load(folder)
    kind = AFMRegressor if model.task == "regression" else AFMClassifier
    settings = model.config.data, model.config.model, model.config.train
    values = {name: value for part in settings for name, value in part}
    values["columns"] = values["columns"] or None
    known = kind._get_param_names()
    estimator = kind(**{name: values[name] for name in known if name in values}, random_state=model.config.train.seed)
    names = [column.name for column in model.schema.columns if column.kind not in ("target", "weight")]
    estimator.n_features_in_ = len(names)
    if names != [f"x{i}" for i in range(len(names))]:  # the names that columns of an array get
        estimator.feature_names_in_ = np.asarray(names, dtype=object)
    return estimator._take(model)
