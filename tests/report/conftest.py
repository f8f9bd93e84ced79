"""One model for all tests of the report, and rows that it has not seen."""

import pyarrow as pa
import pytest

from attfm import AFMClassifier
from attfm.report.rows_shown import Examined
from tests.report.pages import QUICK, table


@pytest.fixture(scope="session")
def model() -> AFMClassifier:
    return AFMClassifier(columns={"number": {"kind": "categorical"}}, **QUICK).fit(*table())


@pytest.fixture(scope="session")
def examined(model: AFMClassifier) -> Examined:
    X, y = table(300, seed=1)
    return Examined.of_table(model.model_, model._source(X), model.model_.target.encode(pa.array(y)))
