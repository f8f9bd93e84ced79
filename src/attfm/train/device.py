"""Where a training computes, and from what its random numbers are drawn there."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from attfm.errors import ConfigError, TrainingError
from attfm.ops.backends import is_compiled

# Multiply-adds of a step from which a GPU is faster than the compiled kernels: below, a step is as long as it takes to
# start its many short operations there. That's 20 fields and steps of 1,024 rows with the defaults.
_STEP_OF_GPU = 50_000_000
_CPU = torch.device("cpu")


def choose_device(name: str, work: float = math.inf) -> torch.device:
    """Return the torch device of "auto", "cpu" or "cuda", where a step takes so many multiply-adds (`step_work`).

    "auto" is CUDA where there is one, but for steps so small that the compiled kernels are faster.

    Raises
    ------
    ConfigError : CUDA is asked for and absent
    TrainingError : in a process that was forked from one that used CUDA: nothing can be trained there
    """
    if torch.cuda._is_in_bad_fork():
        raise TrainingError(
            "A process that was forked from one that used CUDA can't train: start it by 'spawn', as by "
            "multiprocessing.get_context('spawn')."
        )
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("Setting 'device' is 'cuda', but torch sees no CUDA device: use 'auto' or 'cpu'.")
    if name == "auto" and work < _STEP_OF_GPU and is_compiled():
        name = "cpu"
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@contextmanager
def drawn_from(generator: torch.Generator, device: torch.device = _CPU, state: Tensor | None = None) -> Iterator[None]:
    """Let torch's random numbers come from a generator, and leave the caller's alone.

    On a GPU they come from a state of its own generator, or without one from what the generator draws to begin with.
    """
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if on_gpu else []):
        torch.set_rng_state(generator.get_state())
        if on_gpu and state is not None:
            torch.cuda.set_rng_state(state)
        elif on_gpu:
            torch.cuda.manual_seed(int(torch.randint(2**62, ())))
        try:
            yield
        finally:
            generator.set_state(torch.get_rng_state())
