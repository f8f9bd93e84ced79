"""Forked children of a process that has fitted a model, with threads, fit, predict and explain too."""

import os
import subprocess
import sys

import pytest

from attfm import AFMClassifier, TrainingError

PROGRAM = """
import multiprocessing, os, signal
import numpy as np
import torch
from attfm import AFMClassifier

rng = np.random.default_rng(0)
X = rng.normal(size=(4000, 12)).round(DECIMALS)
y = X[:, 0] * X[:, 1] > 0

def work():
    fitted = model.decision_function(X), model.explain(X[:3000]).logits
    again = AFMClassifier(**settings).fit(X, y)
    return *fitted, again.decision_function(X), again.explain(X[:3000]).logits, torch.get_num_threads()

def send(connection):
    connection.send(work())

settings = {"epochs": 1, "n_models": 1, "dim": 32, "attention_dim": 32, "backend": BACKEND}
model = AFMClassifier(**settings).fit(X, y)
expected = work()
assert (model.model_.lookup._current() is not None) == (DECIMALS == 0)  # by tables where the numbers are few
assert expected[-1] == 2  # threads: the test is worth something
context = multiprocessing.get_context("fork")
receiving, sending = context.Pipe(duplex=False)
child = context.Process(target=send, args=(sending,), daemon=True)  # one that hangs ends with its parent
child.start()
assert receiving.poll(60), "the child of multiprocessing hangs"
got = receiving.recv()
child.join()
assert got[-1] == 1
for ours, theirs in zip(expected[:-1], got[:-1]):
    np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-3)
number = os.fork()
if number == 0:
    signal.alarm(60)
    work()
    os._exit(0)
assert os.waitpid(number, 0)[1] == 0
assert torch.get_num_threads() == 2  # the parent's are left alone
work()
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize(("backend", "decimals"), [("auto", 8), ("auto", 0), ("reference", 8)])
def test_a_forked_child_fits_predicts_and_explains(backend: str, decimals: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONWARNINGS": "ignore::DeprecationWarning"}
    done = subprocess.run(
        [sys.executable, "-c", f"BACKEND, DECIMALS = {backend!r}, {decimals}\n{PROGRAM}"],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == "done\n", done.stderr


def test_a_child_of_a_process_that_used_cuda_is_told_to_spawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda._is_in_bad_fork", lambda: True)
    with pytest.raises(TrainingError, match=r"forked from one that used CUDA can't train: start it by 'spawn'"):
        AFMClassifier(epochs=1).fit([[0.0], [1.0]] * 10, [0, 1] * 10)
