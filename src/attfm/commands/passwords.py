"""The passwords of databases on a command line: kept apart from all that is printed or stored."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

from attfm.data.sources.database_uri import DatabaseUri, is_database

_GIVEN: ContextVar[Mapping[str, DatabaseUri]] = ContextVar("given", default=MappingProxyType({}))


@contextmanager
def passwords_apart(arguments: Sequence[str]) -> Iterator[list[str]]:
    """Give a command line whose URIs have no passwords, which `with_password` finds until the command has ended."""
    given, bare = dict[str, DatabaseUri](), list[str]()
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if is_database(argument):
            option, equals, value = "", "", argument
        if is_database(value):
            uri = DatabaseUri(value)
            value = str(uri)
            given[value] = uri
        bare.append(option + equals + value)
    token = _GIVEN.set(given)
    try:
        yield bare
    finally:
        _GIVEN.reset(token)


def with_password(table: str) -> str:
    """Return a table as it was given, with the password where it is a database; not to be printed or stored."""
    return _GIVEN.get().get(table, table)
