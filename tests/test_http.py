"""Clips from the web: a real server in a thread, which can cut, redirect, change, lie and be slow."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import logging
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from splice.errors import MediaError, RequestError, TransferError
from splice.storage import cached_sha256, download, fetch, list_folder, locate, stat, upload
from splice.storage.http import is_public
from tests.conftest import ROOT

BODY = random.Random(1).randbytes(3_000_000)
OTHER = random.Random(2).randbytes(2_000_000)
SECRET = "X-Amz-Signature=5e77ab1e"


@dataclass
class Page:
    """What a path answers.

    cut_after: bytes of the body, once; but not where one byte is asked for. gate: waits before the body, or the cut.
    """

    body: bytes = BODY
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"one"'})
    has_ranges: bool = True
    framing: str = "length"
    cut_after: int | None = None
    gate: threading.Event | None = None


@dataclass
class Asked:
    """A request; sent_bytes: of the body, so far."""

    method: str
    path: str
    headers: Message
    sent_bytes: int = 0


class WebServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.pages: dict[str, Page | list[Page]] = {}
        self.asked: list[Asked] = []
        super().__init__((host, port), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_port}"

    @property
    def sent_bytes(self) -> int:
        """Of all but what asked for a single byte, which the caller need not wait for."""
        return sum(each.sent_bytes for each in self.asked if each.headers["Range"] != "bytes=0-0")

    def page(self, path: str) -> Page:
        """Of several the next one, and the last for ever."""
        found = self.pages.get(path, Page(b"", 404))
        if isinstance(found, Page):
            return found
        return found.pop(0) if len(found) > 1 else found[0]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Callers that hang up are what is tested here."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WebServer

    def do_GET(self) -> None:
        asked = Asked(self.command, self.path, self.headers)
        self.server.asked.append(asked)
        page = self.server.page(self.path.partition("?")[0])
        start, stop = self._range(page)
        body = page.body[start:stop]
        is_part = (start, stop) != (0, len(page.body))
        self.send_response(206 if is_part else page.status)
        for name, value in page.headers.items():
            self.send_header(name, value)
        if is_part:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(page.body)}")
        if page.framing == "length":
            self.send_header("Content-Length", str(len(body)))
        if page.framing == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        if page.framing == "close":
            self.send_header("Connection", "close")
        self.end_headers()
        if page.gate is not None and page.cut_after is None and not is_part:
            page.gate.wait(30)
        self._send_body(page, body, asked)

    def _range(self, page: Page) -> tuple[int, int]:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        version = page.headers.get("ETag") or page.headers.get("Last-Modified")
        if not match or not page.has_ranges or page.status != 200 or (condition and condition != version):
            return 0, len(page.body)
        return int(match[1]), min(int(match[2]) + 1 if match[2] else len(page.body), len(page.body))

    def _send_body(self, page: Page, body: bytes, asked: Asked) -> None:
        is_look = self.headers.get("Range") == "bytes=0-0"
        cut_after = len(body) if page.cut_after is None or is_look else page.cut_after
        for start in range(0, len(body), 1 << 16):
            chunk = body[start : start + (1 << 16)]
            if start + len(chunk) > cut_after:
                if page.gate is not None:
                    page.gate.wait(30)
                page.cut_after = None
                self.close_connection = True
                return
            head, tail = (f"{len(chunk):x}\r\n".encode(), b"\r\n") if page.framing == "chunked" else (b"", b"")
            asked.sent_bytes += len(chunk)
            self.wfile.write(head + chunk + tail)
        if page.framing == "chunked":
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Not on the tests' screen."""


@pytest.fixture
def server() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JOIN_CLIPS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("JOIN_CLIPS_ALLOW_PRIVATE_ADDRESSES", "true")
    return tmp_path / "cache"


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json")


# --- fetched once, and checked


def test_a_clip_is_fetched_once_and_called_by_its_content(server: WebServer, cache_dir: Path) -> None:
    server.pages["/my%20clips/a.MP4"] = Page()
    url = f"{server.url}/my clips/a.MP4?{SECRET}"
    identity = locate(url)
    assert (identity.size_bytes, identity.version) == (len(BODY), 'etag:"one"')
    assert server.sent_bytes == 0
    path = fetch(url)
    sha256 = hashlib.sha256(BODY).hexdigest()
    assert path == cache_dir / sha256[:2] / f"{sha256}.mp4"
    assert path.read_bytes() == BODY
    assert cached_sha256(path) == sha256
    sent_bytes = server.sent_bytes
    # Signed anew: another query, the same file.
    assert fetch(f"{server.url}/my clips/a.MP4?X-Amz-Signature=another") == path
    assert server.sent_bytes == sent_bytes
    assert files_in(cache_dir) == [path]
    assert {each.method for each in server.asked} == {"GET"}


def test_a_file_that_changed_is_fetched_anew(server: WebServer) -> None:
    page = server.pages["/a.mp4"] = Page()
    first = fetch(f"{server.url}/a.mp4")
    page.body, page.headers = OTHER, {"ETag": '"two"'}
    assert fetch(f"{server.url}/a.mp4").read_bytes() == OTHER
    assert first.read_bytes() == BODY


@pytest.mark.parametrize("damage", ["truncated", "deleted", "index"])
def test_a_damaged_cache_is_found_out(server: WebServer, cache_dir: Path, damage: str) -> None:
    server.pages["/a.mp4"] = Page()
    path = fetch(f"{server.url}/a.mp4")
    if damage == "truncated":
        path.write_bytes(BODY[:-1])
    elif damage == "deleted":
        path.unlink()
    else:
        next((cache_dir / "index").iterdir()).write_text("{half")
    assert fetch(f"{server.url}/a.mp4").read_bytes() == BODY


def test_a_clock_s_seconds_do_not_make_two_queries_one_file(server: WebServer) -> None:
    modified = {"Last-Modified": "Mon, 23 Nov 2026 10:00:00 GMT"}
    page = server.pages["/video"] = Page(headers=modified)
    first = fetch(f"{server.url}/video?id=1")
    page.body = BODY[::-1]
    assert fetch(f"{server.url}/video?id=2") != first
    sent_bytes = server.sent_bytes
    assert fetch(f"{server.url}/video?id=2").read_bytes() == BODY[::-1]
    assert server.sent_bytes == sent_bytes


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_without_a_version_a_file_is_always_fetched_anew(server: WebServer, cache_dir: Path, framing: str) -> None:
    page = server.pages["/a.mp4"] = Page(headers={}, has_ranges=False, framing=framing)
    assert locate(f"{server.url}/a.mp4").size_bytes == (len(BODY) if framing == "length" else 0)
    assert fetch(f"{server.url}/a.mp4").read_bytes() == BODY
    page.body = OTHER
    assert fetch(f"{server.url}/a.mp4").read_bytes() == OTHER
    assert len(files_in(cache_dir)) == 2


def test_download_is_complete_or_absent(server: WebServer, tmp_path: Path) -> None:
    page = server.pages["/a.mp4"] = Page(cut_after=1_000_000)
    target = tmp_path / "out" / "a.mp4"
    with pytest.raises(TransferError, match="broke off"):
        download(f"{server.url}/a.mp4", target)
    assert not target.exists()
    download(f"{server.url}/a.mp4", target)
    assert target.read_bytes() == BODY
    assert list(target.parent.iterdir()) == [target]
    assert page.cut_after is None
    assert server.sent_bytes == len(BODY)


# --- cut connections


@pytest.mark.parametrize("headers", [{"ETag": '"one"'}, {"Last-Modified": "Mon, 23 Nov 2026 10:00:00 GMT"}])
def test_a_cut_download_goes_on_where_it_ended(server: WebServer, cache_dir: Path, headers: dict[str, str]) -> None:
    server.pages["/a.mp4"] = Page(headers=headers, cut_after=2_000_000)
    with pytest.raises(TransferError, match=r"127\.0\.0\.1:\d+/a\.mp4: the connection failed or broke off"):
        fetch(f"{server.url}/a.mp4?{SECRET}")
    assert fetch(f"{server.url}/a.mp4?{SECRET}").read_bytes() == BODY
    last = server.asked[-1].headers
    assert (last["If-Range"], last["Range"]) == (
        next(iter(headers.values())),
        f"bytes={len(BODY) - server.asked[-1].sent_bytes}-",
    )
    assert 0 < server.asked[-1].sent_bytes < 1_200_000
    assert len(files_in(cache_dir)) == 1


def test_a_cut_download_of_what_changed_begins_anew(server: WebServer, cache_dir: Path) -> None:
    page = server.pages["/a.mp4"] = Page(cut_after=2_000_000)
    with pytest.raises(TransferError):
        fetch(f"{server.url}/a.mp4")
    page.body, page.headers = OTHER, {"ETag": '"two"'}
    assert fetch(f"{server.url}/a.mp4").read_bytes() == OTHER
    assert len(files_in(cache_dir)) == 1


def test_a_file_that_changes_while_it_is_fetched_is_fetched_anew(server: WebServer, cache_dir: Path) -> None:
    server.pages["/a.mp4"] = [Page(), Page(OTHER, headers={"ETag": '"two"'})]
    with pytest.raises(TransferError, match="changed while it was fetched"):
        fetch(f"{server.url}/a.mp4")
    assert files_in(cache_dir) == []
    assert fetch(f"{server.url}/a.mp4").read_bytes() == OTHER


@pytest.mark.parametrize("page", [Page(has_ranges=False), Page(headers={"ETag": 'W/"one"'}), Page(headers={})])
def test_a_cut_download_begins_anew_where_it_can_t_go_on(server: WebServer, cache_dir: Path, page: Page) -> None:
    page.cut_after = 2_000_000
    server.pages["/a.mp4"] = page
    with pytest.raises(TransferError):
        fetch(f"{server.url}/a.mp4")
    assert fetch(f"{server.url}/a.mp4").read_bytes() == BODY


def test_a_chunked_download_that_is_cut_is_not_taken_for_the_whole(server: WebServer, cache_dir: Path) -> None:
    server.pages["/a.mp4"] = Page(headers={}, has_ranges=False, framing="chunked", cut_after=1_000_000)
    with pytest.raises(TransferError, match="broke off"):
        fetch(f"{server.url}/a.mp4")
    assert not [path for path in files_in(cache_dir) if path.suffix == ".mp4"]


def test_what_can_t_be_told_from_a_cut_file_is_refused(server: WebServer) -> None:
    server.pages["/a.mp4"] = Page(headers={}, has_ranges=False, framing="close")
    with pytest.raises(RequestError, match="does not say how long it is"):
        fetch(f"{server.url}/a.mp4")


FETCH = "import sys; from splice.storage import fetch; print(fetch(sys.argv[1]))"


def test_a_killed_download_goes_on(server: WebServer, cache_dir: Path) -> None:
    gate = threading.Event()
    server.pages["/a.mp4"] = Page(cut_after=2_000_000, gate=gate)
    process = subprocess.Popen([sys.executable, "-c", FETCH, f"{server.url}/a.mp4"], cwd=ROOT)
    deadline = time.monotonic() + 60
    while sum(path.stat().st_size for path in files_in(cache_dir)) < 1_000_000:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    gate.set()
    assert fetch(f"{server.url}/a.mp4").read_bytes() == BODY
    (resumed,) = [each for each in server.asked if each.headers["Range"] not in (None, "bytes=0-0")]
    assert resumed.sent_bytes <= 2_000_000


def test_two_processes_that_fetch_the_same_download_it_once(server: WebServer) -> None:
    gate = threading.Event()
    server.pages["/a.mp4"] = Page(gate=gate)
    command = [sys.executable, "-c", FETCH, f"{server.url}/a.mp4"]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    deadline = time.monotonic() + 60
    while [each.headers["Range"] for each in server.asked].count("bytes=0-0") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    gate.set()
    paths = {process.communicate(timeout=60)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert Path(paths.pop()).read_bytes() == BODY
    assert not paths
    assert server.sent_bytes == len(BODY)


def test_a_slow_server_times_out(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOIN_CLIPS_READ_TIMEOUT_SECONDS", "0.3")
    gate = threading.Event()
    server.pages["/a.mp4"] = Page(gate=gate)
    with pytest.raises(TransferError, match="ReadTimeout"):
        fetch(f"{server.url}/a.mp4")
    gate.set()


# --- limits of size and disk


def test_too_large_a_file_is_refused_before_its_first_byte(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOIN_CLIPS_MAX_DOWNLOAD_GB", "0.001")
    server.pages["/a.mp4"] = Page()
    for act in (locate, fetch):
        with pytest.raises(RequestError, match=r"has 0\.003 GB .* allowed are 0\.001 GB; .*JOIN_CLIPS_MAX_DOWNLOAD_GB"):
            act(f"{server.url}/a.mp4")
    assert server.sent_bytes == 0


def test_a_file_that_turns_out_too_large_is_refused(
    server: WebServer, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOIN_CLIPS_MAX_DOWNLOAD_GB", "0.001")
    server.pages["/a.mp4"] = Page(headers={}, has_ranges=False, framing="chunked")
    with pytest.raises(RequestError, match="allowed are"):
        fetch(f"{server.url}/a.mp4")
    assert files_in(cache_dir) == []


@pytest.fixture
def full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on a file system of 1 MB; without the right to mount one, flushing says that it is full."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if os.geteuid() == 0 and shutil.which("mount") and subprocess.run(command, capture_output=True).returncode == 0:
        try:
            yield folder
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        return

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    yield folder


def test_a_full_disk_is_said_and_leaves_nothing(
    server: WebServer, full_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOIN_CLIPS_CACHE_DIR", str(full_disk / "cache"))
    server.pages["/a.mp4"] = Page()
    with pytest.raises(MediaError, match=r"no space left for .*; free some"):
        fetch(f"{server.url}/a.mp4")
    assert files_in(full_disk) == []


# --- what servers answer


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (404, RequestError, r"no such file \(404\); check the url"),
        (403, RequestError, "refuses it .* may have expired"),
        (400, RequestError, "answers 400"),
        (429, TransferError, "can't serve it now"),
        (503, TransferError, "can't serve it now"),
    ],
)
def test_what_may_pass_is_told_from_what_may_not(
    server: WebServer, status: int, kind: type[Exception], message: str
) -> None:
    server.pages["/a.mp4"] = Page(b"", status, {})
    with pytest.raises(kind, match=message) as caught:
        fetch(f"{server.url}/a.mp4?{SECRET}")
    assert SECRET not in str(caught.value)
    assert isinstance(caught.value, TransferError) == (kind is TransferError)


def test_an_unreachable_server_may_be_back_later() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(TransferError, match="Connection refused"):
            fetch(f"http://127.0.0.1:{unused.getsockname()[1]}/a.mp4")


def test_compressed_content_is_refused(server: WebServer) -> None:
    server.pages["/a.mp4"] = Page(headers={"Content-Encoding": "gzip"})
    with pytest.raises(RequestError, match="sent compressed"):
        fetch(f"{server.url}/a.mp4")


def test_only_files_are_looked_for_on_the_web(server: WebServer, tmp_path: Path) -> None:
    assert stat(f"{server.url}/a.mp4") is None
    with pytest.raises(RequestError, match="can't be listed"):
        list_folder(server.url)
    with pytest.raises(RequestError, match="nothing can be stored"):
        upload(tmp_path, f"{server.url}/a.mp4")


# --- redirects, and where they lead


def redirect(location: str, status: int = 302) -> Page:
    return Page(b"", status, {"Location": location})


def test_redirects_are_followed(server: WebServer) -> None:
    server.pages["/a.mp4"] = redirect("/b?x=1", 301)
    server.pages["/b"] = redirect(f"{server.url}/c", 307)
    server.pages["/c"] = Page()
    path = fetch(f"{server.url}/a.mp4")
    assert path.read_bytes() == BODY
    assert path.suffix == ".mp4"


def test_redirects_without_end_are_not(server: WebServer) -> None:
    server.pages["/a.mp4"] = redirect("/a.mp4")
    with pytest.raises(RequestError, match="redirected more than 5 times"):
        fetch(f"{server.url}/a.mp4")
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("file:///etc/passwd", "redirected from http:// to file://;"),
        ("ftp://clips.example/a.mp4?secret", "redirected from http:// to ftp://;"),
        ("//user:secret@clips.example/a.mp4", "holds a user's name or password"),
        ("http://exa\tmple/", "redirected to what is no url"),
    ],
)
def test_a_redirect_elsewhere_is_refused(server: WebServer, location: str, message: str) -> None:
    server.pages["/a.mp4"] = redirect(location)
    with pytest.raises(RequestError, match=re.escape(message)) as caught:
        fetch(f"{server.url}/a.mp4")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "127.1", "2130706433", "0.0.0.0", "10.1.2.3", "192.168.1.1", "169.254.169.254"),
        *("[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[fd00::1]", "[fe80::1]", "224.0.0.1", "100.64.0.1"),
    ],
)
def test_addresses_that_are_not_public_are_refused(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOIN_CLIPS_ALLOW_PRIVATE_ADDRESSES")
    for act in (locate, fetch):
        with pytest.raises(RequestError, match=r"no public address; .*JOIN_CLIPS_ALLOW_PRIVATE_ADDRESSES=true"):
            act(f"http://{host}/latest/meta-data")


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_public_addresses_are_let_through(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.fixture
def neighbour(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """A server in the network that nobody may be led to: for this test 127.0.0.1 alone is public."""
    monkeypatch.delenv("JOIN_CLIPS_ALLOW_PRIVATE_ADDRESSES")
    monkeypatch.setattr("splice.storage.http.is_public", lambda address: str(address) == "127.0.0.1")
    neighbour = WebServer("127.0.0.2", server.server_port)
    neighbour.pages["/a.mp4"] = server.pages["/a.mp4"] = Page()
    yield neighbour
    neighbour.shutdown()
    neighbour.server_close()


def test_a_redirect_to_a_private_address_is_refused(server: WebServer, neighbour: WebServer) -> None:
    server.pages["/b.mp4"] = redirect(f"{neighbour.url}/a.mp4")
    with pytest.raises(RequestError, match=r"127\.0\.0\.2, which is no public address"):
        fetch(f"{server.url}/b.mp4")
    assert neighbour.asked == []
    assert fetch(f"{server.url}/a.mp4").read_bytes() == BODY


class Names:
    """A name server that gives one answer after the other for ``clips.example``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
        self.left = list(answers)
        self._ask = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)

    def _answer(self, host: Any, port: Any, *more: Any, **options: Any) -> Any:
        names = self.left.pop(0) if host == "clips.example" else [host]
        return [each for name in names for each in self._ask(name, port, *more, **options)]


def test_a_name_can_t_lead_elsewhere_after_it_was_checked(
    server: WebServer, neighbour: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
    url = f"http://clips.example:{server.server_port}/a.mp4"
    assert locate(url).size_bytes == len(BODY)
    assert len(names.left) == 1
    assert server.asked[-1].headers["Host"] == f"clips.example:{server.server_port}"
    with pytest.raises(RequestError, match=r"clips\.example leads to 127\.0\.0\.2"):
        locate(url)
    assert neighbour.asked == []


def test_every_address_of_a_name_must_be_public(
    server: WebServer, neighbour: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    Names(monkeypatch, ["127.0.0.1", "127.0.0.2"])
    with pytest.raises(RequestError, match=r"leads to 127\.0\.0\.2"):
        locate(f"http://clips.example:{server.server_port}/a.mp4")
    assert server.asked == neighbour.asked == []


def test_the_next_address_is_tried_where_one_is_down(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.pages["/a.mp4"] = Page()
    Names(monkeypatch, ["127.0.0.3", "127.0.0.1"])
    assert locate(f"http://clips.example:{server.server_port}/a.mp4").size_bytes == len(BODY)


# --- https


@pytest.fixture
def secure_server(server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WebServer:
    """The same server under TLS, with a certificate for clips.example that this process trusts."""
    certificate, key = make_certificate(tmp_path, "clips.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    server.pages["/a.mp4"] = Page()
    return server


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "certificate.pem", folder / "key.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, secret


def test_a_certificate_must_be_the_name_s(secure_server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, ["127.0.0.1"])
    assert locate(f"https://clips.example:{secure_server.server_port}/a.mp4").size_bytes == len(BODY)
    with pytest.raises(RequestError, match=r"certificate can't be trusted .*SSL_CERT_FILE"):
        locate(f"https://127.0.0.1:{secure_server.server_port}/a.mp4")


def test_a_certificate_does_not_hold_for_another_name_at_the_same_address(
    secure_server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    secure_server.pages["/b.mp4"] = redirect(f"https://localhost:{secure_server.server_port}/a.mp4")
    Names(monkeypatch, ["127.0.0.1"])
    with pytest.raises(RequestError, match="certificate can't be trusted"):
        locate(f"https://clips.example:{secure_server.server_port}/b.mp4")


def test_redirects_lead_up_to_https_and_never_down(secure_server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = WebServer()
    plain.pages["/a.mp4"] = redirect(f"https://clips.example:{secure_server.server_port}/a.mp4")
    secure_server.pages["/b.mp4"] = redirect(f"{plain.url}/a.mp4")
    Names(monkeypatch, *[["127.0.0.1"]] * 2)
    assert locate(f"{plain.url}/a.mp4").size_bytes == len(BODY)
    with pytest.raises(RequestError, match="redirected from https:// to http://"):
        locate(f"https://clips.example:{secure_server.server_port}/b.mp4")
    plain.shutdown()
    plain.server_close()


# --- secrets


def test_no_query_is_ever_shown(server: WebServer, cache_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    server.pages["/a.mp4"] = Page(cut_after=1_000_000)
    with caplog.at_level(logging.INFO):
        with pytest.raises(TransferError) as caught:
            fetch(f"{server.url}/a.mp4?{SECRET}")
        fetch(f"{server.url}/a.mp4?{SECRET}")
    index = next((cache_dir / "index").iterdir()).read_text()
    assert SECRET not in f"{caught.value} {caplog.text} {index}"
    assert "/a.mp4" in index


@pytest.mark.parametrize("url", ["http://user:secret@clips.example/a.mp4", "https://secret@clips.example/a.mp4?x=@"])
def test_user_info_is_refused_and_not_shown(url: str) -> None:
    for act in (locate, fetch, stat):
        with pytest.raises(RequestError, match="holds a user's name or password") as caught:
            act(url)
        assert "secret" not in str(caught.value)
