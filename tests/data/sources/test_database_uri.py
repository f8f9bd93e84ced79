"""URIs of databases: the password is apart from the text, however it is written."""

import copy
import json
import pickle

import pytest

from attfm.data.sources.database_uri import DatabaseUri, is_database
from attfm.data.sources.files import table_stem
from attfm.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "bare", "full"),
    [
        ("postgresql://u:pw@h:5/db?a=b", "u@h:5/db?a=b", "u:pw@h:5/db?a=b"),
        ("postgres://u:pw@h/db", "u@h/db", "u:pw@h/db"),
        ("postgresql+psycopg2://u:p%40w@h/db", "u@h/db", "u:p%40w@h/db"),
        ("postgresql://u:p@w@h/db", "u@h/db", "u:p%40w@h/db"),
        ("postgresql://u:p/w@h/db", "u@h/db", "u:p%2Fw@h/db"),
        ("postgresql://u:p?w@h/db", "u@h/db", "u:p%3Fw@h/db"),
        ("postgresql://u:p%w@h/db", "u@h/db", "u:p%25w@h/db"),
        ("postgresql://h/db?password=pw&user=a@b", "h/db?user=a@b", "h/db?password=pw&user=a@b"),
        ("postgresql://h/db?user=a&Password=pw", "h/db?user=a", "h/db?user=a&Password=pw"),
        ("postgresql://h:5,i:6/db?user=a@b", "h:5,i:6/db?user=a@b", "h:5,i:6/db?user=a@b"),
        ("postgresql://[::1]:5/db", "[::1]:5/db", "[::1]:5/db"),
        ("postgresql://u:@h", "u@h", "u@h"),
    ],
)
def test_the_text_has_no_password_and_the_driver_gets_it(text: str, bare: str, full: str) -> None:
    uri = DatabaseUri(text)
    assert (uri, uri.with_passwords()) == (f"postgresql://{bare}", f"postgresql://{full}")
    assert DatabaseUri(uri) is uri


def test_copies_and_whatever_is_written_lack_the_password() -> None:
    uri = DatabaseUri("postgresql://u:pw@h/db")
    for other in (copy.deepcopy(uri), pickle.loads(pickle.dumps(uri))):
        assert other.with_passwords() == "postgresql://u@h/db"
    assert "pw" not in f"{uri} {uri!r} {json.dumps(uri)}"
    assert uri.scrubbed("what the driver says of pw and u") == "what the driver says of *** and u"


@pytest.mark.parametrize(
    ("text", "database", "stem"),
    [
        ("postgresql://u:pw@h/my%20shop?x=1", "my shop", "my-shop"),
        ("postgresql://u:pw@h", "u", "u"),
        ("postgresql://", "PostgreSQL", "PostgreSQL"),
        ("sqlite:////data/shop.v2.db", "shop.v2.db", "shop.v2"),
    ],
)
def test_a_database_has_a_name(text: str, database: str, stem: str) -> None:
    assert (DatabaseUri(text).database, table_stem(text)) == (database, stem)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mysql://u:pw@h/db", r"attfm reads no mysql database \(mysql://u@h/db\): give postgresql:// or sqlite:///"),
        ("sqlite://shop.db", "has too few slashes: write sqlite:///shop.db"),
        ("sqlite:///", "names no file: write sqlite:///shop.db"),
    ],
)
def test_what_is_not_read_is_said(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        DatabaseUri(text).check()


def test_files_are_no_databases() -> None:
    assert not any(map(is_database, ["shop.csv", "s3://shop/db.parquet", "file:///postgresql", None]))
