"""A real PostgreSQL server on a Unix socket of its own, and a real gRPC proxy in front of it."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = "nobody"
PROXY = """
import sys
from optuna.storages import get_storage, run_grpc_proxy_server
from heretic_tui.engine.storage.storages import storage_at
run_grpc_proxy_server(get_storage(storage_at(sys.argv[1], None)), host="localhost", port=int(sys.argv[2]))
"""


def programs() -> Path:
    """Where Debian's package has the server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    assert found, "PostgreSQL is needed: apt-get install postgresql"
    return found[-1].parent


@contextmanager
def postgres(*settings: str) -> Iterator[str]:
    """A server with an empty database; gives the URL of the database.

    The server refuses to be root's, so root hands it to nobody. Its folder is short, as the name of a socket must be.
    """
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    user = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam(NOBODY)
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        user = {"user": NOBODY, "group": nobody.pw_gid, "extra_groups": []}
    programs_dir, data = programs(), folder / "data"
    try:
        subprocess.run(
            [programs_dir / "initdb", "-D", data, "-U", "study", "-A", "trust", "--no-sync", "-E", "UTF8"],
            check=True, capture_output=True, cwd=folder, env={**os.environ, "LC_ALL": "C"}, **user,
        )  # fmt: skip
        given = [option for setting in (f"unix_socket_directories={folder}", "listen_addresses=", *settings)
                 for option in ("-c", setting)]  # fmt: skip
        with (folder / "log.txt").open("wb") as log:
            server = subprocess.Popen(
                [programs_dir / "postgres", "-D", data, *given], stdout=log, stderr=log, cwd=folder, **user
            )
        try:
            _until_ready(programs_dir, folder, server)
            yield f"postgresql://study@/postgres?host={folder}"
        finally:
            server.send_signal(signal.SIGINT)  # the fast shutdown, which waits for no client
            server.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _until_ready(programs_dir: Path, folder: Path, server: subprocess.Popen) -> None:
    end = time.monotonic() + 60
    while subprocess.run([programs_dir / "pg_isready", "-q", "-h", folder]).returncode != 0:
        told = (folder / "log.txt").read_text()
        assert server.poll() is None and time.monotonic() < end, f"the server did not start:\n{told}"
        time.sleep(0.1)


@contextmanager
def grpc_proxy(database: str) -> Iterator[str]:
    """Optuna's proxy in front of a database; gives its URL."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", PROXY, database, str(port)])
    try:
        yield f"grpc://localhost:{port}"
    finally:
        server.kill()
        server.wait()
