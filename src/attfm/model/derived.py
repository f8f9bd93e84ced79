"""What is made of a module once and held, and made again after the module has changed."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from torch import Tensor

from attfm.model.ensemble import Scorer, members_of

T = TypeVar("T")


class Derived(Generic[T]):
    """What is made of a module, as it is now.

    It is made at the first call of `current`, and again after the module has changed: when a parameter or a memory is
    another one, or torch has counted a change of a parameter's numbers. (What is written in place through `.data` or
    NumPy it does not count.)

    Parameters
    ----------
    module : one machine or an ensemble
    make : what makes it of the module
    """

    def __init__(self, module: Scorer, make: Callable[[Scorer], T]) -> None:
        self._module, self._make = module, make
        self._machines = members_of(module)
        # The dicts in which torch keeps parameters and buffers: walking through the modules takes longer than scoring.
        self._tensors = [own for part in module.modules() for own in (part._parameters, part._buffers)]
        self._made: _Made[T] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Derived, (self._module, self._make)  # a copy makes its own

    def current(self) -> T:
        """Return what is made of the module as it is now."""
        tensors = [tensor for own in self._tensors for tensor in own.values() if tensor is not None]
        state = [*map(id, tensors), *(tensor.data_ptr() for tensor in tensors), *_changes(tensors)]
        state += [id(machine.memory) for machine in self._machines]
        made = self._made
        if made is None or made.state != state:
            # Two threads may both make it: it is the same, and no lock is held while a process forks.
            held = [*tensors, *(tensor.detach() for tensor in tensors), *(machine.memory for machine in self._machines)]
            made = self._made = _Made(state, held, self._make(self._module))
        return made.value


class _Made(NamedTuple, Generic[T]):
    """What was made of a module, and of what: the state tells where its numbers stand and how often they changed.

    held : the tensors and memories themselves, so that nothing else comes to stand in their place
    """

    state: list[int]
    held: list[Any]
    value: T


def _changes(tensors: Sequence[Tensor]) -> list[int]:
    """Return how often the numbers of each tensor were changed in place."""
    try:
        return [tensor._version for tensor in tensors]
    except RuntimeError:  # those of an inference mode don't count
        return [0 if tensor.is_inference() else tensor._version for tensor in tensors]
