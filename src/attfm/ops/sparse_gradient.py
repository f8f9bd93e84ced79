"""The gradient of some rows of a table."""

from collections.abc import Sequence

import torch
from torch import Tensor


def sparse_gradient(rows: Tensor, values: Tensor, shape: Sequence[int], *, distinct: bool = False) -> Tensor:
    """Return the sparse gradient of a table, of whose rows these have these values; nothing is checked.

    Parameters
    ----------
    rows : int64 (n,), below shape[0]
    values : (n, dim)
    shape : (features, dim), of the table
    distinct : bool, whether no row comes twice, in whatever order: they are not summed again then
    """
    # Torch 2.11 and 2.12 warn that nothing is checked unless it is said around the call too.
    with torch.sparse.check_sparse_tensor_invariants(enable=False):  # type: ignore[no-untyped-call]
        if distinct:
            return torch.sparse_coo_tensor(rows[None], values, tuple(shape), is_coalesced=True, check_invariants=False)
        return torch.sparse_coo_tensor(rows[None], values, tuple(shape), check_invariants=False)
