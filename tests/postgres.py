"""A real Postgres server, Debian's, in a folder and at a port of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def run_postgres() -> Iterator[str]:
    """Its url, while the block runs. Postgres refuses to be root: root lets the user postgres run it."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    assert binaries, "Debian's Postgres is the database here: make debian"
    home = Path(tempfile.mkdtemp(prefix="postgres-"))
    as_user = []
    if os.geteuid() == 0:
        shutil.chown(home, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def control(*arguments: str) -> None:
        command = [*as_user, str(binaries[-1]), "-D", str(home / "data"), "-s", *arguments]
        subprocess.run(command, cwd="/", check=True, stdout=subprocess.DEVNULL)

    try:
        control("initdb", "-o", "--auth=trust --username=prefect --no-sync --encoding=UTF8")
        options = f"-p {port} -k {home} -c listen_addresses=127.0.0.1 -c fsync=off"
        control("start", "-w", "-l", str(home / "log"), "-o", options)
        try:
            yield f"postgresql://prefect@127.0.0.1:{port}/postgres"
        finally:
            control("stop", "-m", "immediate")
    finally:
        shutil.rmtree(home)
