"""Files in S3, on a real server with real credentials, over a wire that can be cut; urls; folders."""

from __future__ import annotations

import filecmp
import hashlib
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from splice.errors import RequestError, TransferError
from splice.settings import settings
from splice.storage import (
    Entry,
    S3Access,
    cached_sha256,
    check_url,
    download,
    fetch,
    is_remote,
    list_folder,
    locate,
    redacted,
    stat,
    upload,
)
from splice.storage.partial import Partial
from splice.storage.s3 import S3Source
from splice.storage.urls import S3Place
from tests.conftest import ROOT
from tests.s3_server import S3Server, Wire, run_s3_server, wire_to
from tests.test_http import Page, WebServer

BODY = random.Random(3).randbytes(3_000_000)
BUCKET = "clips"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with run_s3_server(tmp_path_factory.mktemp("s3")) as server:
        server.client.create_bucket(Bucket=BUCKET)
        yield server


@pytest.fixture
def wire(server: S3Server) -> Iterator[Wire]:
    with wire_to(server) as wire:
        yield wire


@pytest.fixture
def access(server: S3Server, wire: Wire) -> S3Access:
    """By way of the wire."""
    return replace(server.access, endpoint_url=wire.url)


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("JOIN_CLIPS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(BODY)
    return path


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """A name of its own for every test."""
    return f"s3://{BUCKET}/{hashlib.md5(request.node.name.encode()).hexdigest()}/clip.mp4"


def put(server: S3Server, url: str, body: bytes = BODY, **more: Any) -> None:
    """Store as others do, without our metadata."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    server.client.put_object(Bucket=bucket, Key=key, Body=body, **more)


# --- there and back


@pytest.mark.parametrize("key", ["a.mp4", "a b/ü ñ 日本.mp4", "a#b?c=d&e.mp4", "100%/a%20b+c.mp4", "x@y:z/'q\"(1).mp4"])
def test_a_file_comes_back_as_it_was(clip: Path, access: S3Access, tmp_path: Path, key: str) -> None:
    url = f"s3://{BUCKET}/names/{key}"
    assert stat(url, access) is None
    upload(clip, url, access)
    sha256 = hashlib.sha256(BODY).hexdigest()
    there = stat(url, access)
    assert there is not None
    assert (there.size_bytes, there.sha256) == (len(BODY), sha256)
    download(url, tmp_path / "back" / "clip.mp4", access)
    assert (tmp_path / "back" / "clip.mp4").read_bytes() == BODY
    path = fetch(url, access)
    assert (path.name, path.read_bytes()) == (f"{sha256}.mp4", BODY)
    folder, _, name = url.rpartition("/")
    assert name in [entry.name for entry in list_folder(folder, access)]


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("joined_output.mp4", "video/mp4"),
        ("handles.mkv", "video/x-matroska"),
        ("report.json", "application/json"),
        ("timeline.otio", "application/json"),
        ("contact_sheet.jpg", "image/jpeg"),
        ("odd", "application/octet-stream"),
    ],
)
def test_what_is_uploaded_says_its_type(server: S3Server, tmp_path: Path, name: str, content_type: str) -> None:
    (tmp_path / name).write_bytes(b"")
    upload(tmp_path / name, f"s3://{BUCKET}/types/{name}", server.access)
    head = server.client.head_object(Bucket=BUCKET, Key=f"types/{name}")
    assert head["ContentType"] == content_type


def test_a_large_file_goes_in_parts(server: S3Server, tmp_path: Path, url: str) -> None:
    path = tmp_path / "large.mp4"
    with path.open("wb") as opened:
        for part in range(9):
            opened.write(bytes([part]) * (8 << 20))
    upload(path, url, server.access)
    head = server.client.head_object(Bucket=BUCKET, Key=url.removeprefix(f"s3://{BUCKET}/"))
    assert head["ETag"].endswith('-5"')
    assert filecmp.cmp(fetch(url, server.access), path, shallow=False)


def test_the_usual_environment_will_do(server: S3Server, clip: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match=r"no credentials for S3 .*AWS_ACCESS_KEY_ID.*credentials block"):
        stat(url)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    upload(clip, url)
    assert fetch(url).read_bytes() == BODY


def test_many_threads_share_what_they_need(server: S3Server, access: S3Access, url: str) -> None:
    urls = [f"{url}{number}" for number in range(8)]
    for number, each in enumerate(urls):
        put(server, each, BODY[number:])
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda each: fetch(each, access), urls))
    assert [path.read_bytes() for path in paths] == [BODY[number:] for number in range(8)]


# --- the cache


def test_what_is_there_is_not_fetched_again(server: S3Server, wire: Wire, access: S3Access, url: str) -> None:
    put(server, url)
    identity = locate(url, access)
    assert (identity.size_bytes, identity.version) == (len(BODY), f'etag:"{hashlib.md5(BODY).hexdigest()}"')
    assert wire.received_bytes < 10_000
    path = fetch(url, access)
    assert cached_sha256(path) == hashlib.sha256(BODY).hexdigest()
    received_bytes = wire.received_bytes
    assert fetch(url, access) == path
    assert wire.received_bytes - received_bytes < 10_000
    put(server, url, BODY[1:])
    assert locate(url, access) != identity
    assert fetch(url, access).read_bytes() == BODY[1:]


def test_a_presigned_url_is_one_file_however_it_is_signed(
    server: S3Server, url: str, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOIN_CLIPS_ALLOW_PRIVATE_ADDRESSES", "true")
    put(server, url)
    what = {"Bucket": BUCKET, "Key": url.removeprefix(f"s3://{BUCKET}/")}
    first, second = (server.client.generate_presigned_url("get_object", what, seconds) for seconds in (600, 700))
    assert first != second
    assert locate(first) == locate(second)
    path = fetch(first)
    assert path.read_bytes() == BODY
    modified_seconds = path.stat().st_mtime
    assert fetch(second) == path
    assert path.stat().st_mtime == modified_seconds
    with pytest.raises(RequestError, match=r"clip\.mp4: the server refuses it \(403\); a presigned"):
        fetch(f"{first}0")


def test_two_threads_that_fetch_the_same_download_it_once(
    server: S3Server, wire: Wire, access: S3Access, url: str
) -> None:
    put(server, url)
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: fetch(url, access), range(4)))
    assert len(paths) == 1
    assert wire.received_bytes < len(BODY) + 100_000


def test_one_that_comes_as_another_ends_finds_its_file(
    server: S3Server, wire: Wire, access: S3Access, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(server, url)
    publish = Partial.publish
    late_comers = []

    def publish_and_fetch_again(partial: Partial, target: Path) -> None:
        publish(partial, target)
        if target.suffix == ".mp4" and not late_comers:
            late_comers.append(target)
            assert fetch(url, access) == target

    monkeypatch.setattr(Partial, "publish", publish_and_fetch_again)
    assert [fetch(url, access)] == late_comers
    assert wire.received_bytes < len(BODY) + 100_000


def test_threads_that_download_to_the_same_path_do_no_harm(server: S3Server, url: str, tmp_path: Path) -> None:
    put(server, url)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: download(url, tmp_path / "out" / "a.mp4", server.access), range(4)))
    assert (tmp_path / "out" / "a.mp4").read_bytes() == BODY
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_an_object_that_changes_while_it_is_fetched_is_not_taken(server: S3Server, url: str) -> None:
    put(server, url)
    source = S3Source(S3Place(BUCKET, url.removeprefix(f"s3://{BUCKET}/")), server.access, settings())
    file = source.locate()
    put(server, url, BODY[::-1])
    with pytest.raises(TransferError, match="changed while it was fetched"), source.read(file, 1000):
        pass


def test_a_cache_deleted_under_way_is_made_anew(
    server: S3Server, wire: Wire, access: S3Access, url: str, cache_dir: Path
) -> None:
    put(server, url)
    wire.cut_after_receiving(1_000_000)
    with pytest.raises(TransferError):
        fetch(url, access)
    (half,) = (cache_dir / "partial").iterdir()
    half.unlink()
    assert fetch(url, access).read_bytes() == BODY


# --- what goes wrong, said clearly


def test_missing_things_are_told_apart(server: S3Server, clip: Path, tmp_path: Path) -> None:
    for act in (locate, fetch):
        with pytest.raises(RequestError, match=r"/no\.mp4: there is no such object at http.*check its key"):
            act(f"s3://{BUCKET}/no.mp4", server.access)
    missing = "s3://no-such-bucket/a.mp4"
    for attempt in (
        lambda: locate(missing, server.access),
        lambda: fetch(missing, server.access),
        lambda: stat(missing, server.access),
        lambda: upload(clip, missing, server.access),
        lambda: download(missing, tmp_path / "a.mp4", server.access),
        lambda: list_folder("s3://no-such-bucket/x", server.access),
    ):
        with pytest.raises(RequestError, match=r"s3://no-such-bucket/.*: there is no such bucket at http"):
            attempt()


@pytest.mark.parametrize("wrong", [{"secret": "wrong-secret"}, {"key_id": "AKIAWRONG"}])
def test_wrong_credentials_are_said(server: S3Server, clip: Path, url: str, wrong: dict[str, str]) -> None:
    put(server, url)
    access = replace(server.access, **wrong)
    for attempt in (
        lambda: locate(url, access),
        lambda: fetch(url, access),
        lambda: stat(url, access),
        lambda: upload(clip, url, access),
        lambda: list_folder(f"s3://{BUCKET}", access),
    ):
        with pytest.raises(RequestError, match=r"does not accept the credentials .*; correct them") as caught:
            attempt()
        assert "wrong-secret" not in str(caught.value)


def test_a_server_that_is_away_may_be_back_later(server: S3Server, clip: Path, url: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        access = replace(server.access, endpoint_url=f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(
            TransferError, match=r"no connection to http://127\.0\.0\.1:\d+.*JOIN_CLIPS_S3_ENDPOINT_URL"
        ):
            upload(clip, url, access)


def test_an_endpoint_that_makes_no_sense_is_said(server: S3Server, url: str) -> None:
    with pytest.raises(RequestError, match=r"Invalid endpoint: seaweed; correct JOIN_CLIPS_S3_ENDPOINT_URL"):
        stat(url, replace(server.access, endpoint_url="seaweed"))


def test_a_server_that_is_overloaded_may_serve_later(server: S3Server) -> None:
    overloaded = WebServer()
    body = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
    overloaded.pages["/clips"] = Page(body, 503, {"Content-Type": "application/xml"})
    with pytest.raises(TransferError, match=r"can't do it now \(SlowDown: Please reduce"):
        list_folder("s3://clips", replace(server.access, endpoint_url=overloaded.url))
    assert len(overloaded.asked) == 3
    overloaded.shutdown()
    overloaded.server_close()


def test_secrets_are_not_shown(server: S3Server) -> None:
    access = replace(server.access, session_token="token")
    assert server.secret not in repr(access)
    assert "token=" not in repr(access)


def test_too_large_an_object_is_refused(server: S3Server, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(server, url)
    monkeypatch.setenv("JOIN_CLIPS_MAX_DOWNLOAD_GB", "0.001")
    for act in (locate, fetch):
        with pytest.raises(RequestError, match=r"allowed are 0\.001 GB"):
            act(url, server.access)


# --- cut connections


def test_a_cut_download_goes_on_where_it_ended(
    server: S3Server, wire: Wire, access: S3Access, url: str, cache_dir: Path
) -> None:
    put(server, url)
    wire.cut_after_receiving(2_000_000)
    with pytest.raises(TransferError, match="broke off"):
        fetch(url, access)
    assert [path.parent.name for path in cache_dir.rglob("*") if path.is_file()] == ["partial"]
    assert fetch(url, access).read_bytes() == BODY
    assert wire.received_bytes < len(BODY) + 400_000


def test_a_cut_download_of_what_changed_begins_anew(
    server: S3Server, wire: Wire, access: S3Access, url: str, cache_dir: Path
) -> None:
    put(server, url)
    wire.cut_after_receiving(2_000_000)
    with pytest.raises(TransferError):
        fetch(url, access)
    put(server, url, BODY[::-1])
    assert fetch(url, access).read_bytes() == BODY[::-1]
    assert list((cache_dir / "partial").iterdir()) == []


def test_a_damaged_part_is_found_out_and_fetched_anew(
    server: S3Server, wire: Wire, access: S3Access, url: str, cache_dir: Path
) -> None:
    put(server, url)
    wire.cut_after_receiving(2_000_000)
    with pytest.raises(TransferError):
        fetch(url, access)
    (half,) = (cache_dir / "partial").iterdir()
    half.write_bytes(bytes(half.stat().st_size))
    with pytest.raises(TransferError, match="arrived damaged: its MD5 is"):
        fetch(url, access)
    assert fetch(url, access).read_bytes() == BODY


def test_content_that_is_not_what_was_uploaded_is_found_out(server: S3Server, url: str, tmp_path: Path) -> None:
    put(server, url, Metadata={"sha256": "0" * 64})
    with pytest.raises(TransferError, match="arrived damaged: its SHA-256 is"):
        download(url, tmp_path / "a.mp4", server.access)
    assert list(tmp_path.glob("*.mp4")) == []


def test_a_cut_upload_is_repeated_by_itself(
    server: S3Server, wire: Wire, access: S3Access, clip: Path, url: str
) -> None:
    wire.cut_after_sending(1_000_000)
    upload(clip, url, access)
    assert fetch(url, server.access).read_bytes() == BODY


UPLOAD = (
    "import sys; from pathlib import Path; from splice.storage import upload; upload(Path(sys.argv[1]), sys.argv[2])"
)


@pytest.mark.parametrize("size_bytes", [3 << 20, 40 << 20])
def test_a_killed_upload_leaves_nothing_under_its_name(
    server: S3Server, wire: Wire, tmp_path: Path, url: str, size_bytes: int
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(bytes(size_bytes))
    environment = {**os.environ, **server.environment, "JOIN_CLIPS_S3_ENDPOINT_URL": wire.url}
    wire.hold_after_sending(size_bytes // 2)
    process = subprocess.Popen([sys.executable, "-c", UPLOAD, str(path), url], cwd=ROOT, env=environment)
    assert wire.is_held.wait(60)
    process.kill()
    process.wait()
    wire.die()
    assert stat(url, server.access) is None
    assert list_folder(url.rpartition("/")[0], server.access) == []
    upload(path, url, server.access)
    assert stat(url, server.access) is not None


def test_an_upload_that_fails_leaves_what_was_there_and_no_parts(
    server: S3Server, wire: Wire, access: S3Access, tmp_path: Path, url: str
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(BODY)
    upload(path, url, server.access)
    before = stat(url, server.access)
    path.write_bytes(bytes(40 << 20))
    wire.break_on(b"partNumber=3")
    with pytest.raises(TransferError, match=r"no connection to .*, or it broke off"):
        upload(path, url, access)
    assert stat(url, server.access) == before
    uploads = server.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    assert [upload["Key"] for upload in uploads if upload["Key"] in url] == []


# --- folders


def test_a_folder_in_s3_is_listed(server: S3Server) -> None:
    for key in ("b/clip10.mp4", "b/clip2.mp4", "b/sub folder/x.mp4", "b/sub folder/deep/y.mp4", "bc/z.mp4"):
        put(server, f"s3://{BUCKET}/list/{key}", b"12345")
    for url in (f"s3://{BUCKET}/list/b", f"s3://{BUCKET}/list/b/"):
        entries = list_folder(url, server.access)
        assert [(each.name, each.is_folder, each.size_bytes) for each in entries] == [
            ("clip10.mp4", False, 5),
            ("clip2.mp4", False, 5),
            ("sub folder", True, 0),
        ]
    assert entries[2].url == f"s3://{BUCKET}/list/b/sub folder/"
    assert entries[0].url == f"s3://{BUCKET}/list/b/clip10.mp4"
    assert entries[0].modified_seconds > 1.7e9
    assert [each.name for each in list_folder(entries[2].url, server.access)] == ["deep", "x.mp4"]
    assert [each.name for each in list_folder(f"s3://{BUCKET}", server.access) if each.name == "list"] == ["list"]
    assert list_folder(f"s3://{BUCKET}/nothing", server.access) == []


def test_a_long_folder_in_s3_is_listed_to_its_end(server: S3Server) -> None:
    keys = [f"long/{number:04}.mp4" for number in range(1100)]
    with ThreadPoolExecutor(8) as pool:
        client = server.client
        list(pool.map(lambda key: client.put_object(Bucket=BUCKET, Key=key, Body=b"x"), keys))
    entries = list_folder(f"s3://{BUCKET}/long", server.access)
    assert [f"long/{entry.name}" for entry in entries] == keys


def test_a_folder_of_this_machine_is_listed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a b.mp4").write_bytes(b"123")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    modified = (tmp_path / "a b.mp4").stat().st_mtime
    folder = (tmp_path / "folder").stat().st_mtime
    for url in (str(tmp_path), f"file://{tmp_path}"):
        assert list_folder(url) == [
            Entry("a b.mp4", f"{tmp_path}/a b.mp4", 3, modified, False),
            Entry("folder", f"{tmp_path}/folder", 0, folder, True),
        ]
    with pytest.raises(RequestError, match="no such folder, or its name is no UTF-8; check its path"):
        list_folder(str(tmp_path / "nowhere"))


# --- this machine, by the same verbs


def test_files_of_this_machine_are_taken_where_they_are(clip: Path, tmp_path: Path) -> None:
    spaced = tmp_path / "a b.mp4"
    upload(clip, str(spaced))
    assert fetch(f"file://{tmp_path}/a%20b.mp4") == spaced
    assert (cached_sha256(spaced), spaced.read_bytes()) == (None, BODY)
    there = stat(str(spaced))
    assert there is not None
    assert (there.size_bytes, there.sha256) == (len(BODY), None)
    download(str(spaced), tmp_path / "out" / "c.mp4")
    assert (tmp_path / "out" / "c.mp4").read_bytes() == BODY
    assert stat(str(tmp_path / "none.mp4")) is None
    with pytest.raises(RequestError, match="no such file; check its path"):
        fetch(str(tmp_path / "none.mp4"))


# --- urls


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("clips/a b.mp4?x", "clips/a b.mp4?x"),
        ("file:///clips/a%20b.mp4", "file:///clips/a%20b.mp4"),
        ("s3://bucket/a?b#c@d.mp4", "s3://bucket/a?b#c@d.mp4"),
        ("s3://id:se/cret@bucket/a.mp4", "s3://..."),
        ("https://host:8443/a.mp4?secret#secret", "https://host:8443/a.mp4"),
        ("https://user:secret@host/a.mp4?secret", "https://host/a.mp4"),
        ("https://user:sec?ret@host/a.mp4", "https://..."),
        ("https://[::1]:8443/a.mp4?secret", "https://[::1]:8443/a.mp4"),
    ],
)
def test_urls_are_shown_without_secrets(url: str, shown: str) -> None:
    assert redacted(url) == shown


@pytest.mark.parametrize(
    "url", ["a.mp4", "/a b.mp4", "file:///a", "file://localhost/a", "s3://bucket/a", "HTTPS://h/a?b"]
)
def test_good_urls_are_let_through(url: str) -> None:
    check_url(url)
    assert is_remote(url) == url.lower().startswith(("s3:", "http"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "empty url"),
        ("ftp://host/a.mp4?secret", r"ftp://host/a\.mp4: got ftp://; needed"),
        ("file://elsewhere/a.mp4", "names another machine"),
        ("s3://id:secret@bucket/a.mp4", r"s3://bucket/a\.mp4: holds a user's name or password"),
        ("s3://id:se/cret@bucket/a.mp4", "holds a user's name or password"),
        ("s3:///a.mp4", "'' is no name of a bucket"),
        ("https://user:secret@host/a.mp4", r"https://host/a\.mp4: holds a user's name"),
        ("http:///a.mp4", "names no host"),
        ("http://host:port/a.mp4", "a port that is no number"),
        ("http://host/a\nb.mp4", "not a url"),
    ],
)
def test_bad_urls_are_refused(url: str, message: str) -> None:
    for act in (check_url, is_remote, locate, fetch):
        with pytest.raises(RequestError, match=message) as caught:
            act(url)
        assert "secret" not in str(caught.value)


def test_a_bucket_is_no_file(server: S3Server) -> None:
    for url in (f"s3://{BUCKET}", f"s3://{BUCKET}/folder/"):
        with pytest.raises(RequestError, match="names a bucket or folder"):
            fetch(url, server.access)


# --- settings


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JOIN_CLIPS_CACHE_DIR", "~/clips")
    monkeypatch.setenv("JOIN_CLIPS_MAX_DOWNLOAD_GB", "")
    assert settings().cache_dir == tmp_path / "clips"
    assert settings().max_download_gb == 50
    monkeypatch.setenv("JOIN_CLIPS_MAX_DOWNLOAD_GB", "much")
    with pytest.raises(RequestError, match=r"JOIN_CLIPS_MAX_DOWNLOAD_GB: .*number; correct it or leave it out"):
        settings()
