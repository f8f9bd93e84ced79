"""Optimiser steps on the touched rows of a table: the cost is that of the rows, not of the table."""

import torch
from torch import Tensor

from attfm.errors import DataError
from attfm.ops import native


def sum_rows(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return a sparse gradient's rows (int64, none twice, by first appearance) and the sum of each (rows, dim)."""
    rows, values = gradient._indices()[0], gradient._values()
    if gradient.is_coalesced():
        return rows, values
    if native.compiled is None or rows.device.type != "cpu" or len(gradient) > 2**31 - 1:
        together = gradient.coalesce()
        return together.indices()[0], together.values()
    slots, distinct = torch.ops.attfm.find_slots(rows.to(torch.int32)[:, None], len(gradient))
    if len(distinct) == len(rows):
        return rows, values
    total = values.new_zeros((len(distinct), *values.shape[1:]))
    return distinct, total.index_add_(0, slots[:, 0], values)


@torch.no_grad()
def adam_rows(
    parameter: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    *,
    step: int,
    rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    decay: float = 0.0,
) -> None:
    """Do one step of Adam with decoupled weight decay, in place, on the rows that the sparse gradient holds.

    Where every row is touched this is `torch.optim.AdamW` (Kingma and Ba 2015; Loshchilov and Hutter 2019).

    Parameters
    ----------
    parameter, mean, square : (features, dim) contiguous; mean and square start at 0
    gradient : sparse (features, dim), as `torch.nn.Embedding(sparse=True)` makes it
    step : number of this step, from 1
    rate, betas, eps, decay : as torch.optim.AdamW's lr, betas, eps and weight_decay

    Raises
    ------
    DataError
        Shapes that differ, or a gradient that is not sparse.
    """
    rows, values = _touched(parameter, gradient, mean, square)
    corrections = [1 - beta**step for beta in betas]
    if _takes(parameter, values, mean, square):
        _update(rows, parameter, mean, square, values, rate, decay, eps, betas, corrections)
        return
    m = mean[rows].lerp_(values, 1 - betas[0])
    v = square[rows].mul_(betas[1]).addcmul_(values, values, value=1 - betas[1])
    mean[rows], square[rows] = m, v
    change = m / corrections[0] / ((v / corrections[1]).sqrt_() + eps)
    parameter[rows] = parameter[rows] * (1 - rate * decay) - rate * change


@torch.no_grad()
def adagrad_rows(
    parameter: Tensor, gradient: Tensor, square: Tensor, *, rate: float, eps: float = 1e-10, decay: float = 0.0
) -> None:
    """Do one step of Adagrad, in place, on the rows that the sparse gradient holds (Duchi et al. 2011).

    Where every row is touched and decay is 0 this is `torch.optim.Adagrad`; the decay is decoupled, as AdamW's.
    Parameters and errors are those of `adam_rows`.
    """
    rows, values = _touched(parameter, gradient, square)
    if _takes(parameter, values, square):
        _update(rows, parameter, None, square, values, rate, decay, eps, (0.0, 0.0), [1.0, 1.0])
        return
    v = square[rows].addcmul_(values, values)
    square[rows] = v
    parameter[rows] = parameter[rows] * (1 - rate * decay) - rate * values / (v.sqrt() + eps)


def _touched(parameter: Tensor, gradient: Tensor, *state: Tensor) -> tuple[Tensor, Tensor]:
    if not gradient.is_sparse:
        raise DataError(
            "The gradient is dense: rows are updated from a sparse one, as of pair_attention_pool_ids(sparse=True)."
        )
    shapes = [tuple(t.shape) for t in (parameter, gradient, *state)]
    if parameter.ndim != 2 or len(set(shapes)) > 1:
        raise DataError(f"Parameter, gradient and state must all be (features, dim); they are {shapes}.")
    return sum_rows(gradient)


def _takes(*tensors: Tensor) -> bool:
    named: dict[str, Tensor | None] = {str(n): t for n, t in enumerate(tensors)}
    return native.obstacle(named) is None and all(t.is_contiguous() for t in tensors)


def _update(
    rows: Tensor,
    parameter: Tensor,
    mean: Tensor | None,
    square: Tensor,
    values: Tensor,
    rate: float,
    decay: float,
    eps: float,
    betas: tuple[float, float],
    corrections: list[float],
) -> None:
    assert native.compiled is not None
    native.compiled.update_rows(
        rows.contiguous(), parameter.detach(), mean, square, values.detach(), rate, decay, eps, *betas, *corrections,
        native.thread_count(max(1, len(rows)), values.numel() * 20),
    )  # fmt: skip
    torch.autograd.graph.increment_version(parameter)
