"""Where a training computes: the choice, and what must follow a module to another device."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attfm.config import ModelConfig, TrainConfig
from attfm.estimators import AFMClassifier
from attfm.model.modules import FactorizationMachine
from attfm.ops import native_info, use_backend
from attfm.ops.sparse_gradient import sparse_gradient
from attfm.train.device import choose_device, drawn_from
from attfm.train.losses import _with_prior
from attfm.train.optimizer import DenseMethod
from attfm.train.prior import Prior
from attfm.train.sparse_optimizer import LazyTable
from attfm.train.trainer import Trainer
from tests.train.test_checkpoint import CASES, KilledError, Killer, state_of
from tests.train.test_trainer import build, data, xor_examples

compiled = pytest.mark.skipif(not native_info()["available"], reason="installed without the compiled kernels")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
# A device that holds no numbers: what is computed there of a tensor of the CPU fails as it does on a GPU.
ELSEWHERE = torch.device("meta")


@compiled
def test_small_steps_stay_with_the_compiled_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    columns = {columns: FactorizationMachine(99, columns, 1, ModelConfig()).step_work(1024) for columns in (10, 39)}
    assert choose_device("auto", columns[10]).type == "cpu"
    assert choose_device("auto", columns[39]).type == "cuda"
    assert choose_device("cuda", columns[10]).type == "cuda"
    assert choose_device("cpu", columns[39]).type == "cpu"
    with use_backend("reference"):
        assert choose_device("auto", columns[10]).type == "cuda"


def test_without_a_gpu_large_steps_are_done_by_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device("auto", math.inf).type == "cpu"


@compiled
def test_a_small_table_is_trained_by_the_cpu_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert Trainer(build(), data(xor_examples()), TrainConfig.parse({"batch_size": 32})).device.type == "cpu"


@pytest.mark.parametrize("name", ["adam", "adagrad"])
def test_moments_go_on_where_the_parameters_are(name: str) -> None:
    config = TrainConfig.parse({"optimizer": name, "learning_rate": 0.1})
    here, there = (
        DenseMethod([torch.nn.Parameter(torch.ones(3, 2, device=device))], config) for device in ("cpu", ELSEWHERE)
    )
    here._parameters[0].grad = torch.ones(3, 2)
    here.step()
    there.load_state_dict(here.state_dict())
    assert [tensor.device for tensor in (*there._squares, *there._means)] == [ELSEWHERE] * 2
    lazy, other = (
        LazyTable(torch.nn.Parameter(torch.ones(3, 2, device=device)), config, ridge=1.0)
        for device in ("cpu", ELSEWHERE)
    )
    other.load_state_dict(lazy.state_dict())
    assert {tensor.device for tensor in (other._moved, other._mean, other._square)} == {ELSEWHERE}


def test_a_state_that_was_taken_is_not_shared() -> None:
    method = DenseMethod([torch.nn.Parameter(torch.ones(3, 2))], TrainConfig.parse({"learning_rate": 0.1}))
    kept = method.state_dict()
    before = kept["_squares"][0].clone()
    method.load_state_dict(kept)
    method._parameters[0].grad = torch.ones(3, 2)
    method.step()
    assert torch.equal(kept["_squares"][0], before)


def test_what_was_learned_holds_a_machine_that_is_elsewhere() -> None:
    prior = Prior(torch.arange(4, dtype=torch.float64), 6.0)
    found = {}
    for device in (torch.device("cpu"), ELSEWHERE):
        machine = FactorizationMachine(4, 2, 1, ModelConfig().as_preset("linear")).to(device)
        own = torch.tensor([[0.3], [0.3], [3.0], [3.0]], device=device)  # of two bins and two levels
        ((_, found[device]),) = _with_prior(machine, {id(machine.linear.weight): own}, prior, 10)[1:]
        assert found[device].device == device
    here, there = found.values()
    assert here.flatten().tolist() == pytest.approx([0.03, 0.13, 0.5, 0.6])
    assert (there.dtype, there.shape) == (here.dtype, here.shape)


def test_random_numbers_leave_those_of_the_caller_alone() -> None:
    generator = torch.Generator().manual_seed(1)
    before = torch.get_rng_state()
    with drawn_from(generator):
        drawn = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    expected = torch.Generator().manual_seed(1)
    assert torch.equal(drawn, torch.rand(3, generator=expected))
    assert torch.equal(generator.get_state(), expected.get_state())


@pytest.mark.filterwarnings("error")
def test_sparse_gradients_are_those_of_the_rows() -> None:
    rows, values = torch.tensor([2, 0, 2]), torch.tensor([[1.0], [2.0], [4.0]])
    assert sparse_gradient(rows, values, (4, 1)).to_dense().flatten().tolist() == [2.0, 0.0, 5.0, 0.0]
    assert sparse_gradient(rows[:2], values[:2], (4, 1), distinct=True).is_coalesced()
    assert not sparse_gradient(rows, values, (4, 1)).is_coalesced()


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("case", CASES)
def test_a_gpu_ends_where_it_would_have_ended(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {**CASES[case], "train": {**CASES[case]["train"], "device": "cuda"}}
    if settings.get("lazy"):
        monkeypatch.setattr("attfm.train.trainer.is_lazy", lambda *_: True)
    watch = Killer()
    whole = state_of(None, settings, killer=watch)
    with pytest.raises(KilledError):
        state_of(tmp_path, settings, killer=Killer(watch.steps // 2))
    resumed = state_of(tmp_path, settings, killer=Killer())
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, resumed[name], rtol=1e-3, atol=1e-4)  # sums of many threads differ a little


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("settings", [{"n_models": 1}, {"n_models": 3}, {"preset": "linear"}])
def test_a_model_of_a_gpu_learns_on_there(settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    X = {"x": rng.normal(size=600), "who": rng.integers(0, 40, 600).astype(str)}
    y = (X["x"] + np.sin(X["who"].astype(int)) + rng.normal(0, 0.5, 600) > 0).astype(int)
    scores = {}
    for device in ("cpu", "cuda"):
        model = AFMClassifier(device=device, epochs=5, random_state=0, **settings)
        model.fit({name: column[:500] for name, column in X.items()}, y[:500])
        model.partial_fit({name: column[500:] for name, column in X.items()}, y[500:])
        scores[device] = model.score(X, y)
    assert scores["cuda"] == pytest.approx(scores["cpu"], abs=0.05)
    assert scores["cuda"] > 0.75
