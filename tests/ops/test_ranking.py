"""The kernel that ranks against the same in numpy, on every instruction set."""

import numpy as np
import pytest

from attfm.ops import use_backend
from attfm.serve.ranking.ranker import Ranker
from tests.ops.pool_cases import needs_native
from tests.serve.sides import CONTEXT, ITEM, random_model, rows


@pytest.mark.isa
@needs_native
@pytest.mark.parametrize("attention_dim", [1, 5, 16])
@pytest.mark.parametrize("dim", [1, 17])
def test_kernel_and_numpy_agree_on_awkward_sizes(dim: int, attention_dim: int) -> None:
    model = random_model(dim=dim, attention_dim=attention_dim, task="multiclass", remembered=8, seed=1)
    ranker, table = Ranker(model, context=CONTEXT), rows(130, 2)
    context = table.select(CONTEXT).slice(0, 1)
    for n in (1, 33, 130):
        items = table.select(ITEM).slice(0, n)
        with use_backend("native"):
            native = ranker.logits(context, items)
        with use_backend("reference"):
            plain = ranker.logits(context, items)
        assert np.abs(native - plain).max() < 1e-5 * max(1.0, np.abs(plain).max())
