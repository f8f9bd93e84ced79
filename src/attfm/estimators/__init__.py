"""AFMClassifier and AFMRegressor: the model behind scikit-learn's estimator interface."""

from attfm.estimators.classifier import AFMClassifier
from attfm.estimators.regressor import AFMRegressor
from attfm.estimators.saved import load

__all__ = ["AFMClassifier", "AFMRegressor", "load"]
