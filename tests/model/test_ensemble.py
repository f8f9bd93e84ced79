"""An ensemble is the mean of its members, to the last bit in any company, and comes back from a folder."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from attfm.data.batch import Batch
from attfm.model.ensemble import Ensemble, members_of
from attfm.model.run_folder import load_model, save_model
from attfm.ops import native_info, scoring, use_backend
from tests.explain.account import ENCODINGS, TARGETS, encoded, mixed, model, source


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("task", TARGETS)
def test_logits_are_the_mean_of_the_members(task: str, encoding: str, backend: str) -> None:
    made = model(task, members=3, background=False, **ENCODINGS[encoding])
    rows, ensemble = encoded(made, source()), made.module
    assert isinstance(ensemble, Ensemble)
    each = torch.stack([machine.predict(rows).double() for machine in ensemble.machines])
    for logits in (ensemble.predict(rows), ensemble(rows).detach()):
        torch.testing.assert_close(logits.double(), each.mean(0), rtol=1e-5, atol=1e-4)
    assert (each[0] - each[1]).abs().max() > 0.1
    assert ensemble.scores_natively == (backend == "native")
    with use_backend("auto"):
        assert copy.deepcopy(ensemble).double().predict(rows).dtype == torch.float64


@pytest.mark.isa
def test_a_row_has_the_same_bits_in_any_company(monkeypatch: pytest.MonkeyPatch) -> None:
    if not native_info()["available"]:
        pytest.skip("attfm was installed without its compiled kernels")
    made = model("binary", members=3, background=False)
    rows = encoded(made, source())
    whole = made.module.predict(rows)
    monkeypatch.setattr("attfm.model.ensemble.CHUNK", 16)  # several chunks, of bags too
    torch.testing.assert_close(made.module.predict(rows), whole, rtol=0, atol=0)
    for row in (0, 17, len(rows) - 1):
        torch.testing.assert_close(made.module.predict(rows.slice(row, row + 1)), whole[[row]], rtol=0, atol=0)
    with use_backend("reference"):  # and the model's own door is the same to 1e-12 without the kernels
        np.testing.assert_allclose(made.logits_of(rows.slice(5, 6)), made.logits_of(rows)[5:6], rtol=1e-12)


def test_no_rows_are_no_logits() -> None:
    made = model("multiclass", members=2, background=False)
    assert made.module.predict(encoded(made, source()).slice(0, 0)).shape == (0, 3)


@pytest.mark.parametrize("task", TARGETS)
def test_a_folder_gives_the_same_bits_and_the_same_account(task: str, tmp_path: Path) -> None:
    made = model(task, members=3)
    folder = save_model(made, tmp_path / "run")
    again = load_model(folder)
    assert isinstance(again.module, Ensemble)
    np.testing.assert_array_equal(again.logits(mixed()), made.logits(mixed()))
    assert {name: array.tolist() for name, array in again.background.items()} == {
        name: array.tolist() for name, array in made.background.items()
    }
    names = load_file(folder / "weights.safetensors").keys()
    assert {name.split(".")[1] for name in names} == {"0", "1", "2"}
    one = replace(made, module=made.module.machines[1])
    single = load_model(save_model(one, tmp_path / "one"))
    assert members_of(single.module) == (single.module,)
    np.testing.assert_array_equal(single.logits(mixed()), one.logits(mixed()))


def test_members_score_a_chunk_before_the_next_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model("binary", members=2, background=False)
    seen = list[tuple[int, int]]()
    for number, machine in enumerate(made.module.machines):
        predict = machine.predict

        def watched(rows: Batch, number: int = number, predict: object = predict) -> torch.Tensor:
            seen.append((number, len(rows)))
            return predict(rows)

        monkeypatch.setattr(machine, "predict", watched)
    monkeypatch.setattr("attfm.model.ensemble.CHUNK", 100)
    made.module.predict(encoded(made, source()))
    assert seen == [(0, 100), (1, 100), (0, 50), (1, 50)]
    assert scoring.CHUNK >= 4096  # what is monkeypatched is a number of rows that stay in cache
