"""The rows of a query on a PostgreSQL or SQLite database, as Arrow batches through ADBC."""

import hashlib
import importlib
import re
from abc import abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, ClassVar
from urllib.parse import quote

import pyarrow as pa

from attfm.data.sources.database_uri import DatabaseUri
from attfm.data.sources.files import DataFile
from attfm.data.sources.in_memory import stripped
from attfm.data.sources.plain_reader import PlainReader
from attfm.errors import ConfigError, MissingExtraError, SourceError

_BATCH_ROWS = 65_536
_END = " \t\r\n;"
# Around what went wrong: which function of which library noticed it, and the statement.
_BEFORE = re.compile(r"(?:ERROR|FATAL|PANIC):\s+|Failed to [a-z ]+: |\(\) failed: |^\[\w+\] |^[A-Z_]+: (?=\S)")
_AFTER = re.compile(r"\s*\n\s*(?:LINE \d+:|Query was:|query:|Is the server |This probably )")


def open_query(uri: DatabaseUri, query: str | None) -> "Query":
    """Open the rows of a query; raise ConfigError where there is none, and what `Query` does."""
    if query is None or not query.strip(_END):
        raise ConfigError(
            f"{uri} is a database: say which of its rows by query= (--query), such as "
            "'select * from clicks order by id'."
        )
    return SqliteQuery(uri, query) if uri.is_sqlite else PostgresQuery(uri, query)


class Query(PlainReader):
    """A query on a database, run again for each pass over its rows; see `source.Reader`.

    It stands inside of others: to count its rows, to choose columns, and to give them types that can be used.

    Parameters
    ----------
    uri : DatabaseUri
    query : str, one SELECT (also WITH or VALUES), with or without a semicolon at its end

    Attributes
    ----------
    fingerprint : str or None, the same only while the rows are, where the database can tell; None where it can't

    Raises
    ------
    MissingExtraError : the drivers are not installed
    SourceError : the database can't be opened, the query can't be run, or has no rows
    SchemaError : columns have no names, or the same
    """

    driver: ClassVar[str]
    fingerprint: str | None = None

    def __init__(self, uri: DatabaseUri, query: str) -> None:
        name = f"the query on {uri.database}"
        self._uri, self._name = uri, name
        self._from = f"from (\n{query.strip(_END)}\n) as attfm_rows"  # on lines of its own: it may end in a comment
        with self._opened() as cursor:
            raw = self._run(cursor, f"select * {self._from} limit 0").schema
            stripped(raw.names, name)  # before they are used: names that can't tell columns apart raise here
            self.num_rows, self._expressions = self._typed(cursor, raw)
            if self.num_rows == 0:
                raise SourceError(f"{name} has 0 rows: a table needs at least one.")
            stored = self._run(cursor, f"{self._select(raw.names)} limit 1").schema
        super().__init__(name, stored)

    @abstractmethod
    def _connection(self) -> Any:
        """Return an open connection of the driver's DBAPI."""

    @abstractmethod
    def _typed(self, cursor: Any, raw: pa.Schema) -> tuple[int, dict[str, str]]:
        """Return how many rows there are, and by name the expression that gives a column in a type of use."""

    def _select(self, names: Sequence[str]) -> str:
        """Return the statement that gives some columns."""
        return f"select {', '.join(f'{self._expressions[name]} as {_quoted(name)}' for name in names)} {self._from}"

    def _stored_batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return self._counted(self._again([self._stored[name].name for name in columns]))

    def _again(self, names: Sequence[str]) -> Generator[pa.RecordBatch]:
        rows = 0
        with self._opened() as cursor, closing(self._run(cursor, self._select(names))) as reader:
            while True:
                with self._told(
                    f"{self._name} broke off after {rows:,} of {self.num_rows:,} rows", "Run it again, or correct it."
                ):
                    batch = next(reader, None)
                if batch is None:
                    return
                rows += batch.num_rows
                yield batch

    def _run(self, cursor: Any, statement: str) -> pa.RecordBatchReader:
        """Return the rows of a statement."""
        with self._told(f"{self._name} can't be run", "Correct it, or the URI."):
            cursor.execute(statement)
            return cursor.fetch_record_batch()

    def _only_row(self, cursor: Any, statement: str) -> list[Any]:
        """Return the values of a statement that gives one row."""
        with self._told(f"{self._name} can't be run", "Correct it, or the URI."), self._run(cursor, statement) as rows:
            return [column[0].as_py() for column in rows.read_all().columns]

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Open the database and give a cursor."""
        with self._told(f"{self._uri} can't be opened", "Look whether the server is there, and what the URI says."):
            connection = self._connection()
        with closing(connection), closing(connection.cursor()) as cursor:
            yield cursor

    @contextmanager
    def _told(self, what: str, advice: str) -> Iterator[None]:
        """Raise SourceError for what a driver raises, without its traceback: that could tell passwords."""
        try:
            yield
        except (_module("adbc_driver_manager").Error, pa.ArrowException, OSError) as error:
            if re.search("password (supplied|authentication)", str(error)):
                advice = "Give the right password by PGPASSWORD, ~/.pgpass or the URI."
            raise SourceError(f"{what}: {self._sentence(str(error))}. {advice}") from None

    def _sentence(self, text: str) -> str:
        """Return what a database said, in one line, without the driver's words around it and without passwords."""
        text = _AFTER.split(self._uri.scrubbed(text))[0]
        text = _BEFORE.split(text)[-1]
        return " ".join(text.split()).rstrip(".") or "the database did not say why"


class PostgresQuery(Query):
    """A query on a PostgreSQL database; libpq reads PGPASSWORD, ~/.pgpass and the other variables by itself."""

    driver = "adbc_driver_postgresql"
    _CASTS: ClassVar[Mapping[str, str]] = {
        "numeric": "{}::float8",
        "numeric[]": "{}::float8[]",
        "money": "{}::numeric::float8",
        "interval": "extract(epoch from {})::float8",
        "character": "{}::text",  # without the blanks that fill char(n)
    }

    def _connection(self) -> Any:
        return _dbapi(self.driver).connect(self._uri.with_passwords())

    def _typed(self, cursor: Any, raw: pa.Schema) -> tuple[int, dict[str, str]]:
        asked = ", ".join(f"pg_typeof({_quoted(name)})::text" for name in raw.names)
        own = self._only_row(
            cursor, f"select {asked} from (select) as one left join (select * {self._from}) q on false"
        )
        expressions = {}
        for field, type_name in zip(raw, own, strict=True):
            other = "{}::text" if _is_opaque(field) else "{}"  # such as addresses and ranges
            if pa.types.is_list(field.type) and _is_opaque(field.type.value_field):
                other = "{}::text[]"
            cast = self._CASTS.get(type_name) or self._CASTS.get(_opaque_name(field), other)
            expressions[field.name] = cast.format(_quoted(field.name))
        (rows,) = self._only_row(cursor, f"select count(*) {self._from}")
        return rows, expressions


class SqliteQuery(Query):
    """A query on an SQLite file, whose cells each have a type of their own: a column has the widest of them."""

    driver = "adbc_driver_sqlite"
    _MOST_COLUMNS = 200  # of a statement that looks at types

    def __init__(self, uri: DatabaseUri, query: str) -> None:
        self._first: dict[str, str] = {}
        path = uri.path
        if not path.exists() and not path.is_absolute() and ("/" / path).exists():
            raise SourceError(f"There is no file {path}. Did you mean sqlite:////{path}, from the root?")
        file = DataFile.locate(path)
        if file.is_folder:
            raise SourceError(f"{path} is a folder, no file of SQLite: give the file.")
        log = path.with_name(path.name + "-wal")  # what is written, and not yet in the file
        states = [file.fingerprint, DataFile.locate(log).fingerprint if log.exists() else "", query]
        self.fingerprint = hashlib.sha256(repr(states).encode()).hexdigest()
        super().__init__(uri, query)

    def _connection(self) -> Any:
        return _dbapi(self.driver).connect(f"file:{quote(str(self._uri.path))}?mode=ro")

    def _run(self, cursor: Any, statement: str) -> pa.RecordBatchReader:
        cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(_BATCH_ROWS)})
        return super()._run(cursor, statement)

    def _typed(self, cursor: Any, raw: pa.Schema) -> tuple[int, dict[str, str]]:
        rows, expressions = 0, {}
        for start in range(0, len(raw), self._MOST_COLUMNS):
            names = raw.names[start : start + self._MOST_COLUMNS]
            asked = [f"max(typeof({_quoted(name)}) = '{t}')" for name in names for t in ("blob", "text", "real")]
            rows, *has = self._only_row(cursor, f"select count(*), {', '.join(asked)} {self._from}")
            for name, blob, text, real in zip(names, has[::3], has[1::3], has[2::3], strict=True):
                widest = "text" if text else "blob" if blob else "real" if real else None
                column = _quoted(name)
                expressions[name] = column if widest is None else f"cast({column} as {widest})"
                self._first[name] = {"text": "''", "blob": "x''", "real": "0.0"}.get(str(widest), "0")
        return rows, expressions

    def _select(self, names: Sequence[str]) -> str:
        """Return the statement that gives some columns, after a row of their types.

        The driver takes a column's type from its first rows, and fails where one of another type comes later.
        """
        first = ", ".join(f"{self._first[name]} as {_quoted(name)}" for name in names)
        return f"select {first} union all {super()._select(names)}"

    def _again(self, names: Sequence[str]) -> Generator[pa.RecordBatch]:
        batches = super()._again(names)
        yield next(batches).slice(1)
        yield from batches


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _opaque_name(field: pa.Field) -> str:
    """Return the name of a type of PostgreSQL that Arrow has no type for, "" of any other."""
    name: bytes = (field.metadata or {}).get(b"ADBC:postgresql:typname", b"")
    return name.decode()


def _is_opaque(field: pa.Field) -> bool:
    extension = getattr(field.type, "extension_name", "")
    return extension == "arrow.opaque" or bool(_opaque_name(field))


def _dbapi(driver: str) -> Any:
    return _module(f"{driver}.dbapi")


def _module(name: str) -> Any:
    """Return a module of the drivers; raise MissingExtraError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise MissingExtraError(
            "The drivers that read databases are not installed: run 'pip install \"attfm[sql]\"'."
        ) from None
