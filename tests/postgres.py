"""A PostgreSQL server of one's own: in a temporary folder, on a free port of 127.0.0.1."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

USER, PASSWORD, DATABASE = "ann", "op&n/ses@me", "shop"  # signs that mean something in a URI


def programs() -> Path:
    """Return the folder of initdb and pg_ctl; skip the test where there is none."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    found = next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)
    if found is None:
        pytest.skip("no PostgreSQL server: make test-sql installs it (Debian: apt install postgresql)")
    return found


class Server:
    """A server that runs: its URI with and without the password, and a way to end it."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self.port = port
        self.uri = f"postgresql://{USER}@127.0.0.1:{port}/{DATABASE}"
        self.uri_with_password = self.uri.replace("@", f":{PASSWORD}@", 1)

    def execute(self, *statements: str) -> None:
        """Run statements, each committed."""
        from adbc_driver_postgresql import dbapi

        from attfm.data.sources.database_uri import DatabaseUri

        uri = DatabaseUri(self.uri_with_password).with_passwords()
        with dbapi.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def start(self) -> None:
        """Start it."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        _as_owner("pg_ctl", "-D", self._folder, "-w", "-o", options, "-l", self._folder / "log", "start")

    def kill(self) -> None:
        """End it at once, with all its connections."""
        _as_owner("pg_ctl", "-D", self._folder, "-m", "immediate", "-w", "stop")


@contextmanager
def running() -> Iterator[Server]:
    """Start a server with an empty database, and stop it in the end."""
    programs()
    folder = Path(tempfile.mkdtemp(prefix="attfm-postgres-"))
    server = None
    try:
        password = folder / "password"
        password.write_text(PASSWORD)
        if os.geteuid() == 0:  # initdb refuses root
            nobody = pwd.getpwnam("nobody")
            for path in (folder, password):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        asked = f"-U {USER} -E UTF8 --locale=C --auth=scram-sha-256 --no-sync".split()
        _as_owner("initdb", "-D", folder / "data", *asked, "--pwfile", password)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = Server(folder / "data", port)
        server.start()
        template = Server(folder / "data", port)
        template.uri_with_password = server.uri_with_password.replace(f"/{DATABASE}", "/postgres")
        template.execute(f"create database {DATABASE}")
        yield server
    finally:
        if server is not None and (folder / "data" / "postmaster.pid").exists():
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _as_owner(program: str, *arguments: object) -> None:
    """Run a program of the server as a user that may: not root."""
    demoted = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
    command = [*demoted, str(programs() / program), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/", timeout=120)
    if done.returncode:
        raise RuntimeError(f"{program} failed: {done.stderr.decode(errors='replace')}")
