"""Who computes: the compiled kernels or the plain reference, chosen by a call or for the whole process."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor

from attfm.errors import ConfigError
from attfm.ops import cpu

Backend = Literal["auto", "native", "reference"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
# Multiply-adds of one call from which a missing library is worth a warning (some milliseconds in eager torch).
_LARGE = 10_000_000

_default: Backend = "auto"
_warned = False


def set_backend(name: Backend) -> None:
    """Choose the backend of all calls of this process that name none; raise ConfigError for an unknown one.

    Parameters
    ----------
    name : "native" (float32 on the CPU; raises where it can't), "reference" (plain torch), "auto" (native where it can)
    """
    global _default
    _default = chosen(name)


@contextmanager
def use_backend(name: Backend) -> Iterator[None]:
    """Choose the backend as `set_backend` does, for the time of a with statement; all threads see it."""
    before = _default
    set_backend(name)
    try:
        yield
    finally:
        set_backend(before)


def chosen(backend: Backend | None = None) -> Backend:
    """Return the backend of a call that names this one, or none; raise ConfigError where there is no such backend."""
    if backend is None:
        return _default
    if backend not in BACKENDS:
        raise ConfigError(f"Unknown backend {backend!r}: it is one of {', '.join(BACKENDS)}.")
    return backend


def is_compiled() -> bool:
    """Return whether the compiled kernels are installed and may be used by calls that name no backend."""
    return cpu.compiled is not None and _default != "reference"


def obstacle(tensors: Mapping[str, Tensor | None], backend: Backend | None = None) -> str | None:
    """Return why the compiled kernels don't compute with these tensors, by name, or None where they do.

    Raise ConfigError where they don't and the backend (None: that of the process) is "native".
    """
    backend = chosen(backend)
    if backend == "reference":
        return "the backend is 'reference'"
    why_not = cpu.obstacle(tensors)
    if backend == "native":
        if why_not is not None:
            raise ConfigError(f"backend='native' can't serve: {why_not}. Use backend='auto' or 'reference'.")
        scattered = [name for name, tensor in tensors.items() if tensor is not None and not tensor.is_contiguous()]
        if scattered:
            raise ConfigError(
                f"backend='native' takes contiguous tensors, and {', '.join(scattered)} is not: "
                "call .contiguous() on it, or use backend='auto', which copies."
            )
    return why_not


def warn_where_slow(work: int) -> None:
    """Warn, once, that the kernels are not installed, where a call of `work` multiply-adds would be much faster."""
    global _warned
    if cpu.compiled is None and work >= _LARGE and not _warned and not torch.compiler.is_compiling():
        _warned = True
        warnings.warn(
            "attfm runs without its compiled kernels, 5 to 40 times slower: no C++ compiler was found when it was "
            "installed. Install a compiler (g++ or clang) and run 'pip install --force-reinstall --no-deps attfm'.",
            RuntimeWarning,
            stacklevel=4,
        )
