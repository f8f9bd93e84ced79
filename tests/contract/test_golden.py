"""Fits of small tables give what they gave when the golden files were made (see golden.py)."""

import json

import numpy as np
import pytest
import torch

from attfm.config import Reading
from attfm.data.sources.source import open_source
from attfm.explain.explainer import Explainer
from attfm.model.run_folder import load_model
from attfm.ops import native_info
from tests.contract.golden import CASES, FOLDER, facts, results, table


@pytest.mark.skipif(not native_info()["available"], reason="the dropout of plain torch draws other masks")
@pytest.mark.parametrize("case", CASES)
def test_a_fit_gives_what_it_gave(case: str) -> None:
    kept = np.load(FOLDER / f"{case.replace(' ', '-')}.npz")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = results(case)
    finally:
        torch.set_num_threads(threads)
    assert found.keys() == set(kept)
    same_machine = facts() == json.loads((FOLDER / "facts.json").read_text())
    for name, values in found.items():
        if same_machine and name in ("predictions", "logits"):
            np.testing.assert_array_equal(values, kept[name], err_msg=name)
        else:  # accounts are sums in float64; other vectors and another torch sum in another order
            close = 1e-12 if same_machine else 1e-3
            np.testing.assert_allclose(values, kept[name], rtol=close, atol=close, err_msg=name)


def test_a_run_folder_of_the_first_format_gives_what_it_gave() -> None:
    """Columns were called fields in it, and its facts had no word on how the text was read."""
    model = load_model(FOLDER / "run-of-format-1")
    kept = np.load(FOLDER / "run-of-format-1.npz")["probability"]
    np.testing.assert_allclose(model.predict_proba(table())[:, 1], kept, rtol=1e-5, atol=1e-6)
    assert (model.facts.rows, model.schema.reading) == (240, Reading())
    explanation = Explainer(model).of_rows(open_source(table()), range(3))
    np.testing.assert_allclose(explanation.logits, model.logits(table())[:3], rtol=1e-4, atol=1e-4)
