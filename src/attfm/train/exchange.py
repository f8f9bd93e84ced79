"""What the workers of one training give each other in a step, so that all of them hold the same parameters."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attfm.data.batch import Batch
from attfm.data.dataset import Examples
from attfm.errors import TrainingError
from attfm.model.modules import FactorizationMachine
from attfm.ops.sparse import distinct_rows, sum_rows
from attfm.ops.sparse_gradient import sparse_gradient


@dataclass(frozen=True)
class Share:
    """What one worker takes of a batch.

    part : its mean loss times this, summed over all workers, is the mean loss of the batch
    rows : how many rows it takes
    """

    examples: Examples
    part: float
    rows: int


class Exchange:
    """One process, which trains on all rows and has nobody to give anything to; see `Gathering` for several.

    Attributes
    ----------
    rank, workers : int, the number of this worker, from 0, and how many there are
    bytes_sent, steps : int, that this worker has sent to others in steps, and steps in which it has
    """

    rank, workers = 0, 1
    bytes_sent = steps = 0

    def share(self, examples: Examples) -> Share:
        """Return the rows of a batch that this worker takes."""
        return Share(examples, 1.0, len(examples))

    def sum_gradients(self, module: FactorizationMachine, rows: Batch, loss: Tensor, taken: int) -> tuple[Tensor, int]:
        """Put the gradients of all workers together, each the same everywhere then.

        Parameters
        ----------
        module : its gradients are changed in place
        rows : of this worker, that its gradients are of
        loss, taken : scalar, this worker's part of the mean loss; and of how many rows

        Returns
        -------
        loss, taken : of all workers
        """
        return loss, taken

    def on_all_rows(self, rows: Batch, score: Callable[[Batch], Tensor]) -> Tensor:
        """Return what `score` gives of the rows, of which every worker scores its part: (rows, ...)."""
        return score(rows)

    def check_place(self, place: tuple[int, int]) -> None:
        """Raise TrainingError where workers would begin at other places of the rows than this one."""


class Gathering(Exchange):
    """Workers of a group of torch.distributed, each of which reads the same batches and takes its part of the rows.

    In a step they sum the gradients of the dense parameters in one buffer (all-reduce), and give each other of w and V
    the rows that they touched, with their numbers (all-gather): the tables themselves are never sent. Sums are made in
    the order of the ranks, so that all workers hold the same bits.

    `bytes_sent` counts what a ring sends: 2 (workers − 1) / workers of a summed buffer, and workers − 1 times the part
    of a gathered one.
    """

    def __init__(self) -> None:
        import torch.distributed

        self._group = torch.distributed
        self.rank, self.workers = torch.distributed.get_rank(), torch.distributed.get_world_size()

    def _place(self, rows: int, rank: int) -> tuple[int, int]:
        return rows * rank // self.workers, rows * (rank + 1) // self.workers

    def share(self, examples: Examples) -> Share:
        rows = len(examples)
        start, stop = self._place(rows, self.rank)
        # A worker without a row of its own goes along with one of weight 0.
        kept = slice(start, stop) if stop > start else slice(0, 1)
        own = Examples(examples.rows.slice(kept.start, kept.stop), examples.target[kept], examples.weight[kept])
        if stop == start:
            own = Examples(own.rows, own.target, torch.zeros_like(own.weight))
        return Share(own, max(stop - start, 1) / rows, stop - start)

    @torch.no_grad()
    def sum_gradients(self, module: FactorizationMachine, rows: Batch, loss: Tensor, taken: int) -> tuple[Tensor, int]:
        tables = [module.linear.weight] + ([module.embedding.weight] if module.has_pairs else [])
        apart = {id(table) for table in tables}
        dense = [p for p in module.parameters() if p.requires_grad and id(p) not in apart]
        numbers, values = _touched(module, rows, tables)
        # Behind the gradients: the loss, the rows taken, and how many rows of the tables each worker has touched.
        more = torch.zeros(2 + self.workers)
        more[0], more[1], more[2 + self.rank] = float(loss), taken, len(numbers)
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in dense]
        buffer = torch.cat([*(part.flatten().cpu() for part in parts), more])
        self._group.all_reduce(buffer)
        place = 0
        for parameter in dense:
            summed = buffer[place : place + parameter.numel()].view(parameter.shape)
            parameter.grad = summed.to(parameter.device, copy=True)
            place += parameter.numel()
        sizes = [int(size) for size in buffer[place + 2 :]]
        _set_gradients(tables, *self._gathered_rows(numbers, values, sizes), sparse=module.linear.sparse_gradient)
        self.bytes_sent += int(2 * (self.workers - 1) / self.workers * buffer.nbytes)
        self.steps += 1
        return buffer[place].to(loss.device), int(buffer[place + 1])

    def _gathered_rows(self, numbers: Tensor, values: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
        """Return the numbers and gradients of the rows that all workers have touched, worker by worker."""
        packed = torch.zeros(max(sizes), 1 + values.shape[1], dtype=torch.int32)
        packed[: len(numbers), 0] = numbers.int().cpu()
        packed[: len(numbers), 1:] = values.contiguous().cpu().view(torch.int32)
        received = [torch.empty_like(packed) for _ in sizes]
        self._group.all_gather(received, packed)
        self.bytes_sent += (self.workers - 1) * packed.nbytes
        whole = torch.cat([part[:size] for part, size in zip(received, sizes, strict=True)]).to(values.device)
        return whole[:, 0].long(), whole[:, 1:].contiguous().view(torch.float32)

    @torch.no_grad()
    def on_all_rows(self, rows: Batch, score: Callable[[Batch], Tensor]) -> Tensor:
        places = [self._place(len(rows), rank) for rank in range(self.workers)]
        own = score(rows.slice(*places[self.rank]))
        most = max(stop - start for start, stop in places)
        padded = torch.zeros(most, *own.shape[1:], dtype=own.dtype)
        padded[: len(own)] = own.cpu()
        received = [torch.empty_like(padded) for _ in places]
        self._group.all_gather(received, padded)
        parts = [part[: stop - start] for part, (start, stop) in zip(received, places, strict=True)]
        return torch.cat(parts).to(own.device)

    def check_place(self, place: tuple[int, int]) -> None:
        own = torch.tensor(place)
        places = [torch.empty_like(own) for _ in range(self.workers)]
        self._group.all_gather(places, own)
        if any(not torch.equal(other, own) for other in places):
            raise TrainingError(
                f"Worker {self.rank} found another checkpoint than the others: give --out a folder that all machines "
                "share."
            )


def _touched(module: FactorizationMachine, rows: Batch, tables: list[nn.Parameter]) -> tuple[Tensor, Tensor]:
    """Return the rows of w and V that have a gradient, int64 (n,), and it, float32 (n, outputs + dim)."""
    if not module.linear.sparse_gradient:
        numbers = distinct_rows(module.features_of(rows), len(tables[0]))
        none = [torch.zeros_like(table[numbers]) if table.grad is None else table.grad[numbers] for table in tables]
        return numbers, torch.cat(none, 1)
    summed = [sum_rows(table.grad) for table in tables if table.grad is not None]
    numbers = summed[0][0] if len(summed) == 1 else torch.unique(torch.cat([own for own, _ in summed]))
    parts = []
    for own, values in summed:
        part = values.new_zeros(len(numbers), values.shape[1])
        part[torch.arange(len(own)) if len(summed) == 1 else torch.searchsorted(numbers, own)] = values
        parts.append(part)
    return numbers, torch.cat(parts, 1)


def _set_gradients(tables: list[nn.Parameter], numbers: Tensor, values: Tensor, *, sparse: bool) -> None:
    """Set the gradients of w and V to the sums of the rows that workers have sent; a number may come several times."""
    for table, own in zip(tables, torch.split(values, [table.shape[1] for table in tables], 1), strict=True):
        if sparse:
            distinct, summed = sum_rows(sparse_gradient(numbers, own, table.shape))
            table.grad = sparse_gradient(distinct, summed, table.shape, distinct=True)
        else:
            table.grad = torch.zeros_like(table).index_add_(0, numbers, own)


_CURRENT: ContextVar[Exchange] = ContextVar("exchange", default=Exchange())  # noqa: B039 (it is never changed)


def current_exchange() -> Exchange:
    """Return the exchange that trainings which begin now take part in."""
    return _CURRENT.get()


@contextmanager
def exchanging(exchange: Exchange) -> Iterator[None]:
    """Let trainings that begin inside take part in an exchange."""
    token = _CURRENT.set(exchange)
    try:
        yield
    finally:
        _CURRENT.reset(token)
