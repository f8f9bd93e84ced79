"""URIs of databases, whose passwords are kept apart from their text."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from attfm.errors import ConfigError

_POSTGRES, _SQLITE = "postgresql", "sqlite"
_OTHERS = ("mysql", "mariadb", "mssql", "oracle", "snowflake", "redshift", "bigquery", "clickhouse", "trino", "duckdb")
# A driver's name, as SQLAlchemy has it (postgresql+psycopg://), says nothing here.
_SCHEME = re.compile(rf"({_POSTGRES}|postgres|{_SQLITE}|{'|'.join(_OTHERS)})(?:\+\w+)?://", re.IGNORECASE)
_SECRET = re.compile(r"(?i)(?<![^&])(password|sslpassword)=([^&]*)&?")


def is_database(text: object) -> bool:
    """Return whether something is the URI of a database, of a kind that attfm reads or not."""
    return isinstance(text, str) and _SCHEME.match(text) is not None


class DatabaseUri(str):
    """The URI of a database without its passwords: as text it can be printed and stored anywhere.

    The passwords are an attribute beside the text, which copies and pickles lack; only a driver is given them. A `:`,
    `@` or `/` in a password needs no %-encoding; an `@` in the name of a database does.

    Parameters
    ----------
    text : str, postgresql://user:password@host:port/database?options, or sqlite:///path (sqlite:////path from the root)

    Examples
    --------
    >>> uri = DatabaseUri("postgresql://ann:secret@db.example/shop")
    >>> uri, uri.database
    ('postgresql://ann@db.example/shop', 'shop')
    """

    _full: str
    _secrets: tuple[str, ...]

    def __new__(cls, text: str) -> "DatabaseUri":
        if isinstance(text, DatabaseUri):
            return text
        match = _SCHEME.match(text)
        scheme = "" if match is None else match[1].lower()
        rest = text if match is None else text[match.end() :]
        scheme = _POSTGRES if scheme == "postgres" else scheme
        if scheme == _SQLITE:
            full, bare, secrets = rest, rest, list[str]()
        else:
            full, bare, secrets = _divided(rest)
        uri = super().__new__(cls, f"{scheme}://{bare}")
        uri._full, uri._secrets = f"{scheme}://{full}", tuple(secrets)
        return uri

    def __reduce__(self) -> Any:
        return DatabaseUri, (str(self),)

    def check(self) -> None:
        """Raise ConfigError where it is no database that attfm reads."""
        scheme, _, rest = self.partition("://")
        if scheme not in (_POSTGRES, _SQLITE):
            raise ConfigError(
                f"attfm reads no {scheme} database ({self}): give postgresql:// or sqlite:///, open it in Python by "
                "DuckDB, or export the rows as Parquet."
            )
        if scheme == _SQLITE and not rest.strip("/"):
            raise ConfigError(
                f"{self} names no file: write sqlite:///shop.db, or sqlite:////data/shop.db from the root."
            )
        if scheme == _SQLITE and not rest.startswith("/"):
            raise ConfigError(f"{self} has too few slashes: write {_SQLITE}:///{rest}.")

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file of SQLite."""
        return self.startswith(f"{_SQLITE}:")

    @property
    def path(self) -> Path:
        """The file of SQLite."""
        return Path(self.removeprefix(f"{_SQLITE}:///")).expanduser()

    @property
    def database(self) -> str:
        """What messages call it: the name of the database, or of the file of SQLite."""
        if self.is_sqlite:
            return self.path.name
        authority, _, rest = self.partition("://")[2].partition("/")
        user, _, host = authority.rpartition("@")
        return unquote(rest.partition("?")[0]) or unquote(user) or host.partition("?")[0] or "PostgreSQL"

    @property
    def stem(self) -> str:
        """The database's name as that of a folder."""
        name = self.path.stem if self.is_sqlite else self.database
        return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"

    def absolute(self) -> "DatabaseUri":
        """Return it with a path of SQLite that another working directory does not change."""
        return DatabaseUri(f"{_SQLITE}:///{self.path.absolute()}") if self.is_sqlite else self

    def with_passwords(self) -> str:
        """Return the whole URI, for the driver alone."""
        return self._full

    def scrubbed(self, text: str) -> str:
        """Return what a driver says, without the passwords."""
        for secret in self._secrets:
            for written in {secret, quote(secret, safe="")}:
                text = text.replace(written, "***")
        return text


def _divided(rest: str) -> tuple[str, str, list[str]]:
    """Return what follows the scheme with passwords and without, and the passwords."""
    secrets = []
    userinfo, location = _userinfo(rest)
    user, colon, password = userinfo.partition(":")
    full = bare = ""
    if userinfo:
        bare = quote(unquote(user), safe="") + "@"
        full = bare
        if colon and password:
            secrets.append(unquote(password))
            full = f"{bare[:-1]}:{quote(secrets[0], safe='')}@"
    place, mark, parameters = location.partition("?")
    secrets += [unquote(match[2]) for match in _SECRET.finditer(parameters) if match[2]]
    kept = _SECRET.sub("", parameters).rstrip("&")
    return full + location, bare + place + (mark + kept if kept else ""), secrets


def _userinfo(rest: str) -> tuple[str, str]:
    """Return "user:password" and what follows its @, also where the password has an @, / or ? of its own."""
    head = rest.partition("?")[0]
    port = re.search(r":([^:/\]]*)(/|$)", head)
    if "@" in head:
        end = head.rindex("@")
    elif "@" in rest and port is not None and re.fullmatch(r"\d*(,.*)?", port[1]) is None:
        end = rest.rindex("@")
    else:
        return "", rest
    return rest[:end], rest[end + 1 :]
