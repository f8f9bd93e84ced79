"""Fits of small tables give what they gave when the golden files were made (see golden.py)."""

import json

import numpy as np
import pytest
import torch

from tests.contract.golden import CASES, FOLDER, facts, results


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
