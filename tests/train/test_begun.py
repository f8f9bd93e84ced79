"""Encodings that end early: what was done is kept, and gone on with to the same bits; nothing useless stays."""

import errno
import os
import pkgutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attfm.config import Config
from attfm.data.column_file import ColumnWriter
from attfm.data.rows_writer import RowsWriter
from attfm.data.sources.source import open_source
from attfm.data.survey import StreamedTable
from attfm.errors import DataWarning, RunFolderError, SourceError
from attfm.train.begun import Begun, begun_of
from attfm.train.safe_point import SafePoints
from attfm.train.streamed import Streamed, prepare_streamed
from tests.train.test_streamed import table

PASSES = ("looking at the columns", "learning the vocabulary", "encoding")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attfm.data.sources.source.MAX_BATCH_ROWS", 500)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a safe point be kept after each batch."""
    monkeypatch.setattr("attfm.train.safe_point.SECONDS", 0.0)


class Watching:
    """Notes the passes over a table, and does something in one of them, before a batch."""

    def __init__(self, what: str = "", batch: int = 0, act: Callable[[], None] = lambda: None) -> None:
        self.passes: list[str] = []
        self._what, self._batch, self._act = what, batch, act

    def __call__(self, batches: Iterator[pa.RecordBatch], rows: int | None, what: str) -> Iterator[pa.RecordBatch]:
        self.passes.append(what)
        for number, batch in enumerate(batches):
            if number == self._batch and what == self._what:
                self._act()
            yield batch


def interrupt() -> None:
    raise KeyboardInterrupt


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def encoded(path: Path, cache: Path, watch: Watching | None = None, **config: Any) -> Streamed:
    task = path.stem if path.suffix else "binary"
    settings = Config.parse({"train": {"split": "time:day", "negative_rate": 0.7 if task == "binary" else 1, **config}})
    source = open_source(str(path))
    table = StreamedTable(source, "bought", "weight", 0.2, 0.2, 7, cache, watch or Watching())
    return prepare_streamed(table, settings)


def content(of: Streamed) -> dict[str, bytes]:
    files = [path for path in of.folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(of.folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, bytes]]]:
    """Tables by task, and what encodings that nothing disturbs come to, with batches of 500 rows."""
    found, folder = {}, tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("attfm.data.sources.source.MAX_BATCH_ROWS", 500)
        for task in ("binary", "multiclass", "regression"):
            path = table(folder, task)
            found[task] = path, content(encoded(path, folder / f"{task} cache"))
    return found


@pytest.mark.parametrize(("task", "batch"), [("binary", 0), ("multiclass", 1), ("regression", 4)])
@pytest.mark.parametrize("stop", PASSES)
def test_it_goes_on_where_it_was_interrupted(
    tmp_path: Path, whole: dict[str, tuple[Path, dict[str, bytes]]], stop: str, batch: int, task: str
) -> None:
    path, wanted = whole[task]
    with pytest.raises(KeyboardInterrupt):
        encoded(path, tmp_path, Watching(stop, batch, interrupt))
    assert len(list(tmp_path.iterdir())) == (0 if stop == PASSES[0] else 1)
    watch = Watching()
    found = encoded(path, tmp_path, watch)
    done = PASSES.index(stop)
    first = batch * 500 if stop == "encoding" else 0
    assert watch.passes == [*PASSES[done:2], f"encoding, from row {first:,} on" if first else "encoding"]
    assert bool(found.before) == bool(first)
    assert content(found) == wanted
    assert list(tmp_path.iterdir()) == [found.folder]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="its processes are forked")
@pytest.mark.usefixtures("often")
def test_killed_in_each_pass_again_and_again_it_ends_as_if_nobody_had(
    tmp_path: Path, whole: dict[str, tuple[Path, dict[str, bytes]]]
) -> None:
    path, wanted = whole["regression"]
    for what, batch, left in (
        (PASSES[0], 3, ()), (PASSES[1], 0, ("survey.json",)), (PASSES[1], 5, ("survey.json",)),
        (PASSES[2], 0, ("survey.json", "vocabulary.json")), (PASSES[2], 2, ("rows.npz", "survey.json")),
        ("encoding, from row 1,000 on", 2, ("rows.npz",)), ("encoding, from row 2,000 on", 1, ("rows.npz",)),
    ):  # fmt: skip
        child = os.fork()
        if not child:
            encoded(path, tmp_path, Watching(what, batch, kill))
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, what
        (folder,) = tmp_path.iterdir()
        assert set(left) <= {file.name for file in (folder / "kept").iterdir()}
    found = encoded(path, tmp_path)
    assert found.before
    assert content(found) == wanted
    assert list(tmp_path.iterdir()) == [found.folder]


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half_written(self: ColumnWriter, values: np.ndarray) -> None:
    self._stream.write(b"\x07" * (len(values) // 2))
    full()


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(
    ("place", "call", "instead", "passes"),
    [
        ("pyarrow.ipc.new_file", 1, full, 3),  # the survey
        ("pyarrow.ipc.new_file", 2, full, 2),  # the vocabulary
        ("attfm.data.column_file.ColumnWriter.add", 2, half_written, 1),
        ("attfm.data.column_file.ColumnWriter.add", 60, half_written, 1),
        ("attfm.data.column_file.ColumnWriter.flush", 40, full, 1),
        ("attfm.train.safe_point.np.savez", 1, full, 1),
        ("attfm.train.safe_point.np.savez", 3, full, 1),
        ("attfm.files.os.replace", 5, full, 1),
        ("attfm.data.rows_writer.json.dump", 2, full, 0),  # the manifest of a part
        ("pathlib.Path.rename", 2, full, 0),  # all is written
    ],
)
def test_a_full_disk_costs_what_was_not_yet_kept(
    tmp_path: Path, whole: dict[str, tuple[Path, dict[str, bytes]]], place: str, call: int,
    instead: Callable[..., Any], passes: int, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path, wanted = whole["multiclass"]
    calls = 0
    with monkeypatch.context() as patched:
        module, _, name = place.rpartition(".")
        owner = pkgutil.resolve_name(module)
        before = getattr(owner, name)

        def counted(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            return (instead if calls == call else before)(*args, **options)

        patched.setattr(owner, name, counted)
        with pytest.raises(RunFolderError, match=r"can't be written \(No space left on device\): make room") as raised:
            encoded(path, tmp_path)
    kept = passes < 3
    assert ("What was done is kept there." in str(raised.value)) == kept
    assert len(list(tmp_path.iterdir())) == kept
    watch = Watching()
    found = encoded(path, tmp_path, watch)
    assert len(watch.passes) == passes
    assert content(found) == wanted
    assert list(tmp_path.iterdir()) == [found.folder]


def days(folder: Path) -> Path:
    """Write a folder of three files; return it."""
    folder.mkdir()
    rows = pq.read_table(table(folder.parent))
    for number in range(3):
        pq.write_table(rows.slice(1000 * number, 1000), folder / f"{number}.parquet", row_group_size=500)
    return folder


def test_a_file_that_becomes_unreadable_is_named_and_gone_on_from_when_it_is_back(tmp_path: Path) -> None:
    folder, cache = days(tmp_path / "days"), tmp_path / "cache"
    wanted = content(encoded(folder, tmp_path / "other"))
    file = folder / "2.parquet"
    bytes_, times = file.read_bytes(), file.stat()

    def harm() -> None:
        file.write_bytes(bytes_[:4] + bytes(len(bytes_) // 2) + bytes_[4 + len(bytes_) // 2 :])

    with pytest.raises(SourceError, match=r"2.parquet is damaged or cut short in row group 0 \(of 2"):
        encoded(folder, cache, Watching("encoding", 1, harm))
    assert len(list(cache.iterdir())) == 1
    file.write_bytes(bytes_)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as rsync -t and cp -p have it
    watch = Watching()
    found = encoded(folder, cache, watch)
    assert watch.passes == ["encoding, from row 2,000 on"]
    assert content(found) == wanted


def test_with_another_file_all_is_read_and_what_was_kept_is_of_no_use(tmp_path: Path) -> None:
    folder, cache = days(tmp_path / "days"), tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        encoded(folder, cache, Watching("encoding", 3, interrupt))
    pq.write_table(pq.read_table(folder / "1.parquet").slice(0, 900), folder / "1.parquet")
    watch = Watching()
    found = encoded(folder, cache, watch)
    assert (watch.passes, found.before, found.rows) == (list(PASSES), 0, 2900)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(
    ("name", "harm", "passes"),
    [
        ("kept/survey.arrow", "changed", ["looking at the columns", "encoding, from row 1,000 on"]),
        ("kept/survey.json", "cut", ["looking at the columns", "encoding, from row 1,000 on"]),
        ("vocabulary.arrow", "changed", ["learning the vocabulary", "encoding, from row 1,000 on"]),
        ("vocabulary.arrow", "lost", ["learning the vocabulary", "encoding, from row 1,000 on"]),
        *((name, harm, ["encoding"])
          for name in ("kept/rows.npz", "train/1.ids", "valid/number") for harm in ("changed", "cut", "lost")),
    ],
)  # fmt: skip
def test_what_is_damaged_is_made_again(
    tmp_path: Path, whole: dict[str, tuple[Path, dict[str, bytes]]], name: str, passes: list[str], harm: str
) -> None:
    path, wanted = whole["binary"]
    with pytest.raises(KeyboardInterrupt):
        encoded(path, tmp_path, Watching("encoding", 2, interrupt))
    (folder,) = tmp_path.iterdir()
    file = folder / name
    good = file.read_bytes()
    if harm == "lost":
        file.unlink()
    else:
        middle = len(good) // 2
        file.write_bytes(good[:middle] + (bytes([good[middle] ^ 1]) + good[middle + 1 :] if harm == "changed" else b""))
    watch = Watching()
    found = encoded(path, tmp_path, watch)
    assert watch.passes == passes
    assert content(found) == wanted


def test_what_a_process_works_on_is_left_to_it(tmp_path: Path, whole: dict[str, tuple[Path, dict[str, bytes]]]) -> None:
    path, wanted = whole["binary"]

    def another() -> None:
        assert content(encoded(path, tmp_path)) == wanted

    found = encoded(path, tmp_path, Watching("encoding", 2, another))
    assert content(found) == wanted
    assert list(tmp_path.iterdir()) == [found.folder]


def left(cache: Path, key: str, days: float = 0.0) -> Path:
    """Leave a folder of an encoding that was begun so many days ago."""
    begun = Begun(cache, key)
    with suppress(KeyboardInterrupt), begun:
        begun.once("some.arrow", lambda: pa.table({"a": [1]}))
        interrupt()
    then = time.time() - 86_400 * days
    for path in (*begun.folder.rglob("*"), begun.folder):
        os.utime(path, (then, then))
    return begun.folder


def test_few_stay_of_what_others_left_and_not_for_ever(tmp_path: Path) -> None:
    week = left(tmp_path, "week", 8)
    old = left(tmp_path, "old", 3)
    newer = [left(tmp_path, f"newer{n}", n / 10) for n in range(3)]
    with Begun(tmp_path, "mine") as begun:
        assert not old.exists()
        assert not week.exists()
        assert all(folder.exists() for folder in newer)
        with Begun(tmp_path, "other"):  # it is not removed while a process works on it
            assert begun.folder.exists()
    assert not begun.folder.exists()
    with Begun(tmp_path, "newer1") as again:
        assert again.folder == newer[1]
        assert again.has("some.arrow")
        again.finish()
    assert sorted(path.name.partition(".")[0] for path in tmp_path.iterdir()) == ["newer0", "newer1", "newer2"]
    assert [path.name for path in (tmp_path / "newer1").iterdir()] == ["some.arrow"]


def test_nothing_stays_that_nobody_can_find(tmp_path: Path) -> None:
    source = open_source(pq.read_table(table(tmp_path)))
    streamed = StreamedTable(
        source, "bought", None, 0.2, 0.2, 7, tmp_path / "cache", Watching("encoding", 2, interrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        prepare_streamed(streamed, Config())
    assert not list((tmp_path / "cache").iterdir())


def test_without_locks_nothing_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", full)
    begun = Begun(tmp_path, "key")
    with suppress(KeyboardInterrupt), begun:
        begun.once("some.arrow", lambda: pa.table({"a": [1]}))
        with Begun(tmp_path, "key") as other:
            assert other.folder != begun.folder
        interrupt()
    assert not begun_of(tmp_path, "key")


def test_warnings_of_passes_that_are_not_made_again_are_given_again(tmp_path: Path) -> None:
    numbers = ["n/k" if n == 700 else str(n % 5) for n in range(3000)]
    path = table(tmp_path, count=numbers)
    with pytest.warns(DataWarning, match="Column 'count'"), pytest.raises(KeyboardInterrupt):
        encoded(path, tmp_path / "cache", Watching("encoding", 1, interrupt))
    with pytest.warns(DataWarning, match="Column 'count'"):
        encoded(path, tmp_path / "cache")


def test_tables_of_their_own_are_gone_on_with(tmp_path: Path) -> None:
    path = table(tmp_path)
    (tmp_path / "valid").mkdir()
    (tmp_path / "test").mkdir()
    parts = [open_source(str(table(tmp_path / name, rows=2000))) for name in ("valid", "test")]

    def own(cache: Path, watch: Watching) -> Streamed:
        return prepare_streamed(
            StreamedTable(open_source(str(path)), "bought", None, parts[0], parts[1], 7, cache, watch), Config()
        )

    wanted = content(own(tmp_path / "other", Watching()))
    for number in range(2):
        seen = 0

        class Third(Watching):
            def __call__(self, *args: Any) -> Iterator[pa.RecordBatch]:
                nonlocal seen
                seen += args[2].startswith("encoding")
                self._what = args[2] if seen == 2 else "never"
                return super().__call__(*args)

        with pytest.raises(KeyboardInterrupt):
            own(tmp_path / "cache", Third("", 1, interrupt))
        assert number == 0 or seen == 2
    watch = Watching()
    found = own(tmp_path / "cache", watch)
    assert watch.passes == ["encoding, from row 500 on"]
    assert content(found) == wanted


def test_a_safe_point_is_what_was_kept(tmp_path: Path) -> None:
    points = SafePoints(tmp_path / "rows.npz")
    assert not points.latest
    state = {"place": 1, "told": [["a"]], "train": {"rows": 3, "sums": [1, 0.1], "seen": np.array([True, False])}}
    points.keep(state)
    again = SafePoints(tmp_path / "rows.npz").latest
    assert again["train"].pop("seen").tolist() == [True, False]
    assert again == {"place": 1, "told": [["a"]], "train": {"rows": 3, "sums": [1, 0.1]}}
    points.forget()
    assert not SafePoints(tmp_path / "rows.npz").latest


def test_a_writer_that_fails_leaves_no_file_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attfm.data.rows_writer.ColumnWriter", full)
    with pytest.raises(OSError, match="No space"):
        RowsWriter(tmp_path / "rows", (), classes=2)
