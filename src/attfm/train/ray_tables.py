"""Tables that Ray Data reads: a task for each file, actors that work on its batches, and what they give in order.

What goes from process to process within one run is pickled, as all that Ray sends; nothing of it is kept as a file.
"""

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyarrow as pa

from attfm.data.sources.source import MAX_BATCH_ROWS, NumberedBatch, Source, numbered
from attfm.errors import AttfmError, TrainingError

Read = Callable[[Source], Iterator[pa.RecordBatch]]
Work = Callable[[NumberedBatch], Any]


def over_batches(ray: Any, workers: int, source: Source, read: Read, make: Callable[[], Work]) -> Iterator[Any] | None:
    """Yield what actors make of each batch of a table, in the order of its rows.

    None where it is not files, or so small that this process is done before an actor has begun.

    A batch is a row of Ray Data's, so that it stays as it was read. Few are on their way at a time: who takes them
    slowly holds up those who read.

    Parameters
    ----------
    workers : how many actors there are
    read : gives the batches of a file
    make : is called once by each actor, and gives what is called with each batch and the number of its first row

    Raises
    ------
    AttfmError : what reading or work raised, of the first batch that did
    TrainingError : actors were lost and could not be replaced
    """
    parts = source.parts()
    if not parts or (source.num_rows is not None and source.num_rows <= MAX_BATCH_ROWS):
        return None
    return _results(ray, workers, parts, read, make)


def worked_by(ray: Any, workers: int, source: Source, read: Read, work: Work) -> Iterator[Any] | None:
    """Return what `over_batches` does, of work that is at hand, which each actor gets from Ray's store of objects."""
    return over_batches(ray, workers, source, read, partial(ray.get, ray.put(work)))


def _results(
    ray: Any, workers: int, parts: list[Source], read: Read, make: Callable[[], Work]
) -> Iterator[Any]:  # fmt: skip
    with _in_order(ray):
        # What is read is not joined to what works on it: a file is then worked on by several actors.
        found = ray.data.read_datasource(
            _files(ray, parts, read), override_num_blocks=len(parts), num_cpus=0.1
        ).map_batches(
            _Actor, fn_constructor_args=(make,), batch_size=1, batch_format="pyarrow", num_cpus=0.5,
            compute=ray.data.ActorPoolStrategy(min_size=1, initial_size=workers, max_size=workers),
        )  # fmt: skip
        rows = iter(found.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=1))
        while True:
            try:
                row = next(rows, None)
            except ray.exceptions.RayError as error:
                raise TrainingError(f"Workers were lost while they read: {str(error).splitlines()[0]}") from error
            if row is None:
                return
            result = pickle.loads(row.column("made")[0].as_buffer())
            if isinstance(result, AttfmError):
                raise result
            yield result


@contextmanager
def _in_order(ray: Any) -> Iterator[None]:
    """Let Ray Data keep the order of rows, and pass each of them on by itself."""
    context = ray.data.DataContext.get_current()
    options = context.execution_options
    before = options.preserve_order, context.target_max_block_size
    options.preserve_order, context.target_max_block_size = True, 1
    try:
        yield
    finally:
        options.preserve_order, context.target_max_block_size = before


def _files(ray: Any, parts: list[Source], read: Read) -> Any:
    """Return the files as Ray Data reads them."""
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    class Files(Datasource):  # type: ignore[misc, unused-ignore]
        """A task for each file, in order."""

        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[Any]:
            first, tasks = 0, []
            for part in parts:
                known = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
                tasks.append(ReadTask(partial(_read_file, part, first, read), known))
                first += part.num_rows or 0
            return tasks

    return Files()  # type: ignore[no-untyped-call, unused-ignore]


def _read_file(part: Source, first: int, read: Read) -> Iterator[pa.Table]:
    """Yield the batches of a file, each as one row; where it can't be read, what was raised."""
    try:
        for start, batch in numbered(read(part), first):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema) as writer:
                writer.write_batch(batch)
            yield _row(first=start, batch=sink.getvalue().to_pybytes())
    except AttfmError as error:
        yield _row(first=-1, batch=pickle.dumps(error))


def _row(**cells: Any) -> pa.Table:
    return pa.table({name: pa.array([cell], pa.large_binary() if isinstance(cell, bytes) else pa.int64())
                     for name, cell in cells.items()})  # fmt: skip


class _Actor:
    """Works on one batch after the other."""

    def __init__(self, make: Callable[[], Work]) -> None:
        self._work = make()

    def __call__(self, row: pa.Table) -> pa.Table:
        first, content = row.column("first")[0].as_py(), row.column("batch")[0].as_buffer()
        if first < 0:
            return _row(made=content.to_pybytes())
        with pa.ipc.open_stream(content) as stream:
            batch = stream.read_next_batch()
        try:
            made = self._work((first, batch))
        except AttfmError as error:
            made = error
        return _row(made=pickle.dumps(made, protocol=5))
