"""Optimiser steps on the touched rows of a table: the cost is that of the rows, not of the table."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attfm.errors import DataError
from attfm.ops import backends, cpu
from attfm.ops.sparse_gradient import sparse_gradient


def distinct_rows(rows: Tensor, features: int) -> Tensor:
    """Return the numbers in `rows` (any shape, integer, below `features`), int64, none twice."""
    return number_rows(rows.reshape(-1, 1), features)[1]


def number_rows(ids: Tensor, features: int) -> tuple[Tensor, Tensor]:
    """Return (slots, rows): the distinct ids, int64, and each id's place among them, int32 with the shape of ids."""
    if not backends.is_compiled() or ids.device.type != "cpu" or features > 2**31 - 1:
        rows, slots = torch.unique(ids, return_inverse=True)
        return slots.to(torch.int32), rows.long()
    slots, rows = torch.ops.attfm.find_slots(ids.to(torch.int32), features)
    return slots, rows


def read_rows(table: Tensor, rows: Tensor, *, sparse: bool = False) -> Tensor:
    """Return table[rows] for rows of any shape, (..., dim), as `torch.nn.functional.embedding` does.

    A column of single numbers is read as such on the CPU: torch's gradient of an embedding calls a function for each
    row of it, which takes six times as long as the sum itself.
    """
    if sparse or table.shape[1] != 1 or table.device.type != "cpu":
        return F.embedding(rows, table, sparse=sparse)
    return table[:, 0].index_select(0, rows.flatten()).view(*rows.shape, 1)


class _TakenRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = table.shape
        return F.embedding(rows, table)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return sparse_gradient(rows, gradient, ctx.shape, distinct=True), None


def take_rows(table: Tensor, rows: Tensor) -> Tensor:
    """Return table[rows] for rows none of which comes twice; the table's gradient is sparse and holds them alone."""
    taken: Tensor = _TakenRows.apply(table, rows)  # type: ignore[no-untyped-call]
    return taken


def sum_rows(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return a sparse gradient's rows (int64, none twice, by first appearance) and the sum of each (rows, dim)."""
    rows, values = gradient._indices()[0], gradient._values()
    if gradient.is_coalesced():
        return rows, values
    if not backends.is_compiled() or rows.device.type != "cpu" or len(gradient) > 2**31 - 1:
        together = gradient.coalesce()
        return together.indices()[0], together.values()
    slots, distinct = torch.ops.attfm.find_slots(rows.to(torch.int32)[:, None], len(gradient))
    if len(distinct) == len(rows):
        return rows, values
    total = values.new_zeros((len(distinct), *values.shape[1:]))
    return distinct, total.index_add_(0, slots[:, 0], values)


class RowAverage:
    """The exponential average of a table that is moved by rows, exact, at the cost of the rows that a step moves.

    A row p that no step moves between s and t stays, so its average is avg_t = p + k (avg_s - p) there, with k the
    product of the steps' factors. A row is therefore brought up to date when it is about to move, and all rows are
    when the average is asked for.

    Parameters
    ----------
    average : Tensor of (features, dim), changed in place
    source : Tensor of (features, dim), the table, at the start equal to the average
    """

    def __init__(self, average: Tensor, source: Tensor) -> None:
        self.average, self.keep = average, 1.0
        self.log_factors = 0.0  # of all steps since the last `settle`, summed
        self.seen = torch.zeros(len(source), dtype=torch.float64, device=source.device)  # that sum, when up to date
        self._source = source

    @torch.no_grad()
    def catch_up(self, rows: Tensor) -> None:
        """Bring rows that are about to move up to date."""
        share = torch.exp(self.log_factors - self.seen[rows]).to(self.average.dtype)
        self.average[rows] = torch.lerp(self._source[rows], self.average[rows], share[:, None])
        self.seen[rows] = self.log_factors

    @torch.no_grad()
    def take(self, rows: Tensor) -> None:
        """Take in rows that have moved; the average keeps the share `keep` of its old value."""
        self.average[rows] = torch.lerp(self._source[rows], self.average[rows], self.keep)
        self.seen[rows] = self.log_factors + math.log(self.keep)

    def pass_step(self) -> None:
        """Count a step, after its rows are taken in."""
        self.log_factors += math.log(self.keep)

    @torch.no_grad()
    def settle(self) -> None:
        """Bring all rows up to date: costs the whole table."""
        share = torch.exp(self.log_factors - self.seen).to(self.average.dtype)
        self.average.sub_(self._source).mul_(share[:, None]).add_(self._source)
        self.log_factors = 0.0
        self.seen.zero_()


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
    average: RowAverage | None = None,
) -> None:
    """Do one step of Adam with decoupled weight decay, in place, on the rows that the sparse gradient holds.

    Where every row is touched this is `torch.optim.AdamW` (Kingma and Ba 2015; Loshchilov and Hutter 2019).

    Parameters
    ----------
    parameter : Tensor of (features, dim), contiguous
    gradient : sparse Tensor of (features, dim), as `torch.nn.Embedding(sparse=True)` makes it
    mean, square : Tensors of (features, dim), contiguous, 0 at the start
    step : int, number of this step, from 1
    rate, betas, eps, decay : float; two floats; float; float; torch.optim.AdamW's lr, betas, eps and weight_decay
    average : RowAverage of the parameter, into which the moved rows are taken, or None

    Raises
    ------
    DataError : shapes that differ, or a gradient that is not sparse
    """
    rows, values = _touched(parameter, gradient, mean, square)
    corrections = [1 - beta**step for beta in betas]
    if _updated(rows, values, (parameter, mean, square), (rate, decay, eps, *betas, *corrections), average):
        return
    if average is not None:
        average.catch_up(rows)
    m = mean[rows].lerp_(values, 1 - betas[0])
    v = square[rows].mul_(betas[1]).addcmul_(values, values, value=1 - betas[1])
    mean[rows], square[rows] = m, v
    change = m / corrections[0] / ((v / corrections[1]).sqrt_() + eps)
    parameter[rows] = parameter[rows] * (1 - rate * decay) - rate * change
    if average is not None:
        average.take(rows)


@torch.no_grad()
def adagrad_rows(
    parameter: Tensor,
    gradient: Tensor,
    square: Tensor,
    *,
    rate: float,
    eps: float = 1e-10,
    decay: float = 0.0,
    average: RowAverage | None = None,
) -> None:
    """Do one step of Adagrad, in place, on the rows that the sparse gradient holds (Duchi et al. 2011).

    Where every row is touched and decay is 0 this is `torch.optim.Adagrad`; the decay is decoupled, as AdamW's.
    Parameters and errors are those of `adam_rows`.
    """
    rows, values = _touched(parameter, gradient, square)
    if _updated(rows, values, (parameter, None, square), (rate, decay, eps, 0.0, 0.0, 1.0, 1.0), average):
        return
    if average is not None:
        average.catch_up(rows)
    v = square[rows].addcmul_(values, values)
    square[rows] = v
    parameter[rows] = parameter[rows] * (1 - rate * decay) - rate * values / (v.sqrt() + eps)
    if average is not None:
        average.take(rows)


def _touched(parameter: Tensor, gradient: Tensor, *state: Tensor) -> tuple[Tensor, Tensor]:
    if not gradient.is_sparse:
        raise DataError(
            "The gradient is dense: rows are updated from a sparse one, as of pair_attention_pool_ids(sparse=True)."
        )
    shapes = [tuple(t.shape) for t in (parameter, gradient, *state)]
    if parameter.ndim != 2 or len(set(shapes)) > 1:
        raise DataError(f"Parameter, gradient and state must all be (features, dim); they are {shapes}.")
    return sum_rows(gradient)


def _updated(
    rows: Tensor,
    values: Tensor,
    state: tuple[Tensor, Tensor | None, Tensor],
    settings: tuple[float, ...],
    average: RowAverage | None,
) -> bool:
    """Do the step by the kernel and return True, or return False where it can't take the tensors.

    `values` (rows, dim) is the gradient of `rows`; `state` is parameter, mean (None: Adagrad) and square; `settings`
    are rate, decay, eps, both betas and both corrections.
    """
    parameter, mean, square = state
    parts = (parameter, values, mean, square, None if average is None else average.average)
    tensors = {str(n): t for n, t in enumerate(t for t in parts if t is not None)}
    if backends.obstacle(tensors) is not None or not all(t.is_contiguous() for t in tensors.values()):
        return False
    cpu.compiled.update_rows(
        rows.contiguous(), parameter.detach(), mean, square, values.detach(), *settings,
        cpu.thread_count(max(1, len(rows)), values.numel() * 20),
        *(() if average is None else (average.average, average.seen, average.log_factors, average.keep)),
    )  # fmt: skip
    torch.autograd.graph.increment_version(parameter)
    return True
