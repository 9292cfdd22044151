"""Weights come by command only, whole and as the hub says; what is loaded later is held to that."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from splice.errors import RequestError
from splice.models.vace.model import find_vace
from splice.models.vace.presets import PRESETS, Lora, Preset
from splice.models.weights import (
    LockedRepository,
    _write_lock,
    home_of,
    read_lock,
    repositories_of,
    require_repository,
    require_weights,
    split_pin,
)
from tests.conftest import ROOT

REPOSITORY = "someone/tiny-vace"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "model_index.json": json.dumps(
        {"_class_name": "WanVACEPipeline", "vae": ["diffusers", "AutoencoderKLWan"]}
    ).encode(),
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model.safetensors": bytes(range(256)) * 100_000,
    "vae/diffusion_pytorch_model.bin": b"a pickle, which nobody should load",
    "README.md": b"hello",
}


class Hub:
    """As much of the hub's protocol as downloading takes (huggingface_hub: HfApi.model_info, hf_hub_download)."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.cut_after: int | None = None
        self.starts: list[int] = []
        self.lies_about = ""
        self.commit = COMMIT
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(with_body=False)

            def do_GET(self) -> None:
                self._answer(with_body=True)

            def _answer(self, with_body: bool) -> None:
                path = self.path.partition("?")[0]
                if path.startswith("/api/models/"):
                    known = path.startswith(f"/api/models/{REPOSITORY}")
                    answer = hub.tree() if "/tree/" in path else hub.info()
                    self._send(json.dumps(answer).encode(), {}, with_body) if known else self._missing()
                elif match := re.fullmatch(f"/{REPOSITORY}/resolve/{hub.commit}/(.+)", path):
                    self._file(match[1], with_body)
                else:
                    self._missing()

            def _missing(self) -> None:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def _file(self, name: str, with_body: bool) -> None:
                if with_body:
                    hub.asked.append(name)
                headers = {"ETag": f'"{hashlib.sha256(FILES[name]).hexdigest()}"', "X-Repo-Commit": hub.commit}
                self._send(FILES[name], headers, with_body)

            def _send(self, body: bytes, headers: dict[str, str], with_body: bool) -> None:
                start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
                self.send_response(206 if start else 200)
                for name, value in headers.items():
                    self.send_header(name, value)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                if with_body and hub.cut_after and len(body) > hub.cut_after:
                    self.wfile.write(body[start : hub.cut_after])
                    self.close_connection, hub.cut_after = True, None
                elif with_body:
                    hub.starts.append(start)
                    self.wfile.write(body[start:])

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def tree(self) -> list[dict[str, object]]:
        return [{"type": "file", "path": name, "size": len(body), "oid": "0"} for name, body in FILES.items()]

    def info(self) -> dict[str, object]:
        siblings = []
        for name, body in FILES.items():
            said = b"another" if name == self.lies_about else body
            digest = hashlib.sha256(said).hexdigest()
            blob = hashlib.sha1(b"blob %d\0" % len(said) + said).hexdigest()
            lfs = (
                {"lfs": {"sha256": digest, "size": len(body), "pointerSize": 1}} if name.endswith("safetensors") else {}
            )
            siblings.append({"rfilename": name, "size": len(body), "blobId": blob, **lfs})
        return {
            "id": REPOSITORY,
            "modelId": REPOSITORY,
            "sha": self.commit,
            "private": False,
            "tags": [],
            "siblings": siblings,
        }


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running(Hub()) as hub:
        yield hub


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    Thread(target=hub.server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JOIN_CLIPS_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def command(hub: Hub | None, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_ENDPOINT": hub.url if hub else "http://127.0.0.1:9", "COLUMNS": "200"}
    line = [sys.executable, "-m", "splice.models", *words]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_what_is_fetched_is_locked_and_held_to_that(hub: Hub, models: Path) -> None:
    done = command(hub, "fetch", REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert f"{REPOSITORY}: 3 files" in done.stdout and COMMIT in done.stdout
    assert sorted(set(hub.asked)) == ["model_index.json", "vae/config.json", "vae/diffusion_pytorch_model.safetensors"]
    lock = json.loads((models / "weights.lock.json").read_text())["repositories"][REPOSITORY]
    assert lock["revision"] == COMMIT and len(lock["files"]) == 3

    assert require_weights(Preset("x", REPOSITORY)) == home_of(REPOSITORY)
    for name in (REPOSITORY, f"{REPOSITORY}@{COMMIT}"):
        model = find_vace(name)
        assert model is not None and model.spec.name == name and COMMIT in model.spec.revision
    weights = home_of(REPOSITORY) / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(RequestError, match=rf"{weights} is not there, or not what was fetched; fetch it: .* fetch"):
        require_weights(Preset("x", REPOSITORY))
    assert command(hub, "fetch", REPOSITORY).returncode == 0
    require_weights(Preset("x", REPOSITORY))


def test_weights_of_another_commit_never_pass_for_those_that_are_asked_for(
    hub: Hub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RequestError, match=rf"{REPOSITORY} was never fetched to this machine.*; .*name the commit"):
        find_vace(REPOSITORY)
    hub.commit = other = "f" * 40
    assert command(hub, "fetch", REPOSITORY).returncode == 0
    with pytest.raises(
        RequestError, match=rf"was fetched at commit {other}, needed is {COMMIT}; fetch it: .*@{COMMIT}"
    ):
        require_repository(f"{REPOSITORY}@{COMMIT}")
    # What that commit has no more would be loaded with the rest.
    hub.commit = COMMIT
    monkeypatch.delitem(FILES, "vae/config.json")
    hub.asked.clear()
    done = command(hub, "fetch", f"{REPOSITORY}@{COMMIT}")
    assert done.returncode == 0, done.stderr
    assert require_repository(f"{REPOSITORY}@{COMMIT}") == home_of(REPOSITORY)
    assert not (home_of(REPOSITORY) / "vae" / "config.json").exists()
    assert hub.asked == [], "what is the same is not fetched again"


def test_every_preset_names_its_commits() -> None:
    for preset in PRESETS.values():
        assert all(split_pin(repository)[1] for repository in repositories_of(preset))
        vace = find_vace(preset.name)
        assert vace is not None and all(repository in vace.spec.revision for repository in repositories_of(preset))


def test_those_who_fetch_at_once_all_find_their_way_into_the_lock_file(models: Path) -> None:
    models.mkdir()
    names = {f"someone/model-{number}" for number in range(32)}
    with ThreadPoolExecutor(8) as fetchers:
        list(fetchers.map(lambda name: _write_lock(name, LockedRepository(revision=COMMIT, files={})), names))
    assert set(read_lock().repositories) == names


def test_a_fetch_that_was_cut_goes_on_where_it_was(hub: Hub, models: Path) -> None:
    hub.cut_after = 15_000_000  # the library writes pieces of 10 MB
    for _ in range(2):
        done = command(hub, "fetch", REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert max(hub.starts) > 0, "what was there already was not asked for again"
    require_weights(Preset("x", REPOSITORY))


def test_what_was_changed_since_it_was_fetched_is_not_loaded(hub: Hub, models: Path) -> None:
    command(hub, "fetch", REPOSITORY)
    weights = home_of(REPOSITORY) / "vae" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.touch()
    require_weights(Preset("x", REPOSITORY))
    weights.write_bytes(b"x" + whole[1:])
    with pytest.raises(RequestError, match="not what was fetched"):
        require_weights(Preset("x", REPOSITORY))


def test_a_file_that_the_repository_does_not_have_is_no_success(
    hub: Hub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = Lora("mine", REPOSITORY, "nowhere/lora.safetensors", "transformer")
    command(hub, "fetch", REPOSITORY)
    with pytest.raises(RequestError, match=r"nowhere/lora.safetensors was never fetched"):
        require_weights(Preset("x", REPOSITORY, loras=(lora,)))
    monkeypatch.delitem(FILES, "vae/diffusion_pytorch_model.safetensors")
    (models / "weights.lock.json").unlink()
    done = command(hub, "fetch", REPOSITORY)
    assert done.returncode == 2 and "has no *.safetensors" in done.stderr


@pytest.mark.parametrize("name", ["vae/diffusion_pytorch_model.safetensors", "vae/config.json"])
def test_a_file_that_is_not_what_the_hub_says_is_not_kept(hub: Hub, models: Path, name: str) -> None:
    hub.lies_about = name
    done = command(hub, "fetch", REPOSITORY)
    assert done.returncode == 2 and f"{name}: is not the file that the hub has" in done.stderr
    assert not (models / "weights.lock.json").exists()
    assert not (home_of(REPOSITORY) / name).exists()


@pytest.mark.parametrize("name", ["flow_morph", "no_such_model", "../elsewhere", "a/b@main"])
def test_what_can_t_be_fetched_is_refused_before_the_hub_is_asked(name: str) -> None:
    done = command(None, "fetch", name)
    assert done.returncode == 2 and f"error: {name}: has no weights to fetch; those that have are" in done.stderr


def test_a_folder_that_is_none_is_named(hub: Hub, models: Path) -> None:
    models.write_text("a file")
    done = command(hub, "fetch", REPOSITORY)
    assert done.returncode == 2 and f"{models}: weights can't be written there" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_the_hub_does_not_have_is_named(hub: Hub) -> None:
    done = command(hub, "fetch", "someone/else")
    assert done.returncode == 2 and "someone/else" in done.stderr and "Traceback" not in done.stderr


def test_without_a_hub_it_says_so() -> None:
    done = command(None, "fetch", REPOSITORY)
    assert done.returncode == 2 and "is there a connection" in done.stderr and "Traceback" not in done.stderr


def test_the_list_says_what_is_here_and_why_a_model_does_not_run() -> None:
    done = command(None, "list")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "vace_1_3b" in line]
    assert "Apache-2.0" in line and " no " in line
    (line,) = [line for line in done.stdout.splitlines() if "│ flow_morph " in line]
    assert "yes" in line
