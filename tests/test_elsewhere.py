"""Clips from S3 and the web, and a result in S3: a real server, real credentials, machines that share no folder."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.states import State

from flows.join_clips import join_clips
from tests.conftest import ROOT, PrefectServer
from tests.s3_server import S3Server, run_s3_server
from tests.test_flow import executed

pytestmark = pytest.mark.usefixtures("prefect_server")

BUCKET = "footage"
PAPERS = {"contact_sheet.jpg", "joined_output.mp4", "report.html", "report.json", "timeline.otio", "transition.mp4"}


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with run_s3_server(tmp_path_factory.mktemp("s3")) as server:
        server.client.create_bucket(Bucket=BUCKET)
        yield server


@pytest.fixture
def machine(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that knows the S3 server, and has nothing of any run."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("JOIN_CLIPS_WORK_DIR", str(tmp_path / "work"))
    monkeypatch.setenv("JOIN_CLIPS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="module")
def stored_clips(s3: S3Server, numbered_clips: list[Path]) -> list[str]:
    """Urls of clips in the bucket; their names are such as people give."""
    names = ["first clip.mp4", "zweite Ä#1.mp4", "third.mp4"]
    for clip, name in zip(numbered_clips, names, strict=False):
        s3.client.upload_file(str(clip), BUCKET, f"in/{name}")
    return [f"s3://{BUCKET}/in/{name}" for name in names]


def run(urls: list[str], run_id: str, base: str, **settings: Any) -> State[Any]:
    parameters = {"model": "crossfade", "gap_frame_count": 5, "output_base_dir": base, **settings}
    return join_clips(clip_list=[{"url": url} for url in urls], run_id=run_id, return_state=True, **parameters)


def objects(s3: S3Server, prefix: str) -> dict[str, bytes]:
    """What lies under a prefix, by the rest of its key."""
    client = s3.client
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    return {
        each["Key"].removeprefix(prefix): client.get_object(Bucket=BUCKET, Key=each["Key"])["Body"].read()
        for each in listed
    }


def test_from_s3_to_s3_as_from_folder_to_folder(
    s3: S3Server, machine: Path, stored_clips: list[str], numbered_clips: list[Path]
) -> None:
    local = run([str(clip) for clip in numbered_clips[:3]], "here", str(machine / "outputs"))
    state = run(stored_clips, "there", f"s3://{BUCKET}/out/")
    assert state.is_completed(), state
    assert f"s3://{BUCKET}/out/join_clips_run_there/join_1/joined_output.mp4" in str(state.message)
    stored = objects(s3, "out/join_clips_run_there/")
    assert stored["join_1/joined_output.mp4"] == Path(local.result().output.path).read_bytes()
    for join in ("join_0", "join_1"):
        assert {name.partition("/")[2] for name in stored if name.startswith(join)} == PAPERS
    head = s3.client.head_object(Bucket=BUCKET, Key="out/join_clips_run_there/join_1/joined_output.mp4")
    assert head["ContentType"] == "video/mp4"

    # Whoever asks again, on a machine that has nothing, gets the result without fetching a clip.
    shutil.rmtree(machine / "cache")
    shutil.rmtree(machine / "work")
    again = run(stored_clips, "there", f"s3://{BUCKET}/out/")
    assert again.is_completed() and "Already finished" in str(again.message) and executed(again, 0) == set()
    assert not (machine / "cache").exists()

    # A result that was deleted is made again from what is stored.
    s3.client.delete_object(Bucket=BUCKET, Key="out/join_clips_run_there/join_1/joined_output.mp4")
    again = run(stored_clips, "there", f"s3://{BUCKET}/out/")
    assert again.is_completed(), again
    assert executed(again, 3) & {"join_0", "join_1", "join_0_transition", "join_1_transition"} == {"join_1"}
    assert objects(s3, "out/join_clips_run_there/")["join_1/joined_output.mp4"] == stored["join_1/joined_output.mp4"]


def test_the_command_line_says_how_good_the_seams_are_that_it_stored(
    machine: Path, stored_clips: list[str], prefect_server: PrefectServer
) -> None:
    options = ["--model", "crossfade", "--gap-frames", "5", "--run-id", "said", "--max-seam-score", "0"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "flows.join_clips",
            *stored_clips[:2],
            *options,
            "--output-base-dir",
            f"s3://{BUCKET}/out",
        ],
        cwd=ROOT,
        env={**os.environ, **prefect_server.environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    folder = f"s3://{BUCKET}/out/join_clips_run_said/join_0"
    assert done.stdout == f"{folder}/joined_output.mp4\n"
    assert "seam score" in done.stderr and f": {folder}/report.html" in done.stderr
    assert "seam 0 is worse than max_seam_score 0.0" in done.stderr


def test_a_clip_that_changed_in_the_bucket_is_another_clip(
    s3: S3Server, machine: Path, stored_clips: list[str], numbered_clips: list[Path]
) -> None:
    urls = [*stored_clips[:1], f"s3://{BUCKET}/in/changing.mp4"]
    s3.client.upload_file(str(numbered_clips[1]), BUCKET, "in/changing.mp4")
    assert run(urls, "changing", str(machine / "out")).is_completed()
    s3.client.upload_file(str(numbered_clips[2]), BUCKET, "in/changing.mp4")
    state = run(urls, "changing", str(machine / "out"))
    assert state.is_failed() and "changing.mp4" in str(state.message) and "has changed since" in str(state.message)


@pytest.mark.parametrize(
    ("url", "base", "secret", "reason"),
    [
        (f"s3://{BUCKET}/in/missing.mp4", f"s3://{BUCKET}/none", None, "in/missing.mp4"),
        ("s3://no-such-bucket/a.mp4", f"s3://{BUCKET}/none", None, "no-such-bucket"),
        (None, "s3://no-such-bucket/none", None, "no-such-bucket"),
        (None, f"s3://{BUCKET}/none", "wrong", "credentials"),
    ],
    ids=["missing clip", "missing bucket", "missing bucket for the result", "wrong credentials"],
)
def test_what_s3_refuses_is_told_and_nothing_is_stored(
    s3: S3Server,
    machine: Path,
    stored_clips: list[str],
    monkeypatch: pytest.MonkeyPatch,
    url: str | None,
    base: str,
    secret: str | None,
    reason: str,
) -> None:
    if secret:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    urls = [stored_clips[0], url or stored_clips[1]]
    state = run(urls, f"refused-{reason.replace('/', '-')}-{bool(url)}", base)
    assert state.is_failed() and reason in str(state.message), state
    assert objects(s3, "none/") == {}


def test_clips_from_the_web(machine: Path, numbered_clips: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(numbered_clips[0].parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        urls = [f"{address}/{clip.name}?signature=hush" for clip in numbered_clips[:2]]
        refused = run(urls, "private", str(machine / "out"))
        assert refused.is_failed() and "127.0.0.1" in str(refused.message)
        monkeypatch.setenv("JOIN_CLIPS_ALLOW_PRIVATE_ADDRESSES", "true")
        state = run(urls, "web", str(machine / "out"))
        server.shutdown()
    assert state.is_completed(), state
    local = run([str(clip) for clip in numbered_clips[:2]], "web-local", str(machine / "out"))
    assert Path(state.result().output.path).read_bytes() == Path(local.result().output.path).read_bytes()
    for paper in Path(state.result().output.path).parent.parent.rglob("*.*"):
        assert b"hush" not in paper.read_bytes()
