"""A real S3 server with real credentials, in a process of its own; and a wire to it that can be cut."""

from __future__ import annotations

import json
import socket
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from splice.storage import S3Access

READY_SECONDS = 60


@dataclass(frozen=True)
class S3Server:
    """endpoint_url: on this machine. key_id, secret: of a user who may do everything."""

    endpoint_url: str
    key_id: str
    secret: str

    @property
    def port(self) -> int:
        return int(self.endpoint_url.rpartition(":")[2])

    @property
    def access(self) -> S3Access:
        return S3Access(self.endpoint_url, "us-east-1", self.key_id, self.secret)

    @property
    def environment(self) -> dict[str, str]:
        """For a process that should find this server by itself."""
        return {
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "JOIN_CLIPS_S3_ENDPOINT_URL": self.endpoint_url,
        }

    @cached_property
    def client(self) -> Any:
        """boto3's own client, to look from the other side."""
        config = Config(retries={"total_max_attempts": 1})
        session = boto3.session.Session(self.key_id, self.secret, region_name="us-east-1")
        return session.client("s3", endpoint_url=self.endpoint_url, config=config)


@contextmanager
def run_s3_server(folder: Path) -> Iterator[S3Server]:
    """SeaweedFS on free ports of this machine alone, with its files in a fresh folder, until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    server = S3Server("", "AKIATESTSEAMLESS", "a/test+secret=of:40@characters")
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [_identity(server)]}))
    master, volume, filer, s3, *rpc = _free_ports(8)
    command = [
        str(Path(sysconfig.get_path("scripts")) / "weed"),
        "-logtostderr",
        *("server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", f"-s3.config={config}"),
        *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={s3}"),
        *(f"-{part}.port.grpc={port}" for part, port in zip(("master", "volume", "filer", "s3"), rpc, strict=True)),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false", "-master.telemetry=false"),
        *("-volume.max=100", "-master.volumeSizeLimitMB=1024", "-volume.preStopSeconds=0"),
        *(f"-filer.localSocket={folder}/f", f"-s3.localSocket={folder}/s"),
    ]
    log = folder / "server.log"
    with log.open("w") as opened:
        process = subprocess.Popen(command, cwd=folder, stdout=opened, stderr=subprocess.STDOUT)
    try:
        server = S3Server(f"http://127.0.0.1:{s3}", server.key_id, server.secret)
        _wait_until_ready(server, process, log)
        yield server
    finally:
        # It takes its time to say good-bye, and nothing of it is to be kept.
        process.kill()
        process.wait()


def _identity(server: S3Server) -> dict[str, Any]:
    credentials = [{"accessKey": server.key_id, "secretKey": server.secret}]
    return {"name": "tester", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it has stored a file: it answers well before it can."""
    client = server.client
    deadline = time.monotonic() + READY_SECONDS
    problem: Exception | None = None
    while time.monotonic() < deadline and process.poll() is None:
        try:
            client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="ready", Body=b"ready")
            return
        except (BotoCoreError, ClientError) as error:
            problem = error
            with suppress(BotoCoreError, ClientError):
                client.delete_bucket(Bucket="ready")
            time.sleep(0.2)
    raise RuntimeError(f"the S3 server did not start ({problem}):\n{log.read_text()[-4000:]}")


class Wire:
    """A TCP port that passes everything on to another one, counts it, and can be cut, held and mended.

    received_bytes, sent_bytes: what the server had to say, and what was said to it.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self.received_bytes = self.sent_bytes = self.connection_count = 0
        self._cut_received_at: int | None = None
        self._cut_sent_at: int | None = None
        self._hold_sent_at: int | None = None
        self._broken_words: bytes | None = None
        self._released = threading.Event()
        self.is_held = threading.Event()
        self.is_dead = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut_after_receiving(self, count: int) -> None:
        """Once ``count`` more bytes have come from the server every connection breaks; later ones are let pass."""
        with self._lock:
            self._cut_received_at = self.received_bytes + count

    def cut_after_sending(self, count: int) -> None:
        """The same, once ``count`` more bytes went to the server."""
        with self._lock:
            self._cut_sent_at = self.sent_bytes + count

    def hold_after_sending(self, count: int) -> None:
        """Once ``count`` more bytes went to the server nothing more does; ``is_held`` then tells."""
        with self._lock:
            self._hold_sent_at = self.sent_bytes + count

    def break_on(self, words: bytes) -> None:
        """Break, each time, whatever connection says these words."""
        self._broken_words = words

    def die(self) -> None:
        """Break every connection, and each new one at once."""
        self.is_dead = True
        self._break_all()

    def close(self) -> None:
        self._released.set()
        self._listener.close()
        self._break_all()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                if self.is_dead:
                    caller.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._target))
                with self._lock:
                    self.connection_count += 1
                    self._open |= {caller, server}
                threading.Thread(target=self._pass_on, args=(caller, server, self._send), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(server, caller, self._receive), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, note: Callable[[bytes], bool]) -> None:
        with suppress(OSError):
            while chunk := source.recv(1 << 16):
                if not note(chunk):
                    self._break_all()
                target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)

    def _receive(self, chunk: bytes) -> bool:
        with self._lock:
            self.received_bytes += len(chunk)
            if self._cut_received_at is None or self.received_bytes < self._cut_received_at:
                return True
            self._cut_received_at = None
            return False

    def _send(self, chunk: bytes) -> bool:
        with self._lock:
            self.sent_bytes += len(chunk)
            is_held = self._hold_sent_at is not None and self.sent_bytes >= self._hold_sent_at
            is_cut = self._cut_sent_at is not None and self.sent_bytes >= self._cut_sent_at
            self._cut_sent_at = None if is_cut else self._cut_sent_at
        if is_held:
            self.is_held.set()
            self._released.wait()
        return not is_cut and (self._broken_words is None or self._broken_words not in chunk)

    def _break_all(self) -> None:
        with self._lock:
            broken, self._open = self._open, set()
        for each in broken:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextmanager
def wire_to(server: S3Server) -> Iterator[Wire]:
    wire = Wire(server.port)
    try:
        yield wire
    finally:
        wire.close()
