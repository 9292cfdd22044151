"""The command line as a user meets it: what it prints, its exit status, and that a bad request leaves no trace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

from flows.command_line import app
from splice.layout import RunFolder
from tests import footage
from tests.conftest import ROOT, PrefectServer
from tests.footage import make_clip, read_codes

COMMAND = [sys.executable, "-m", "flows.join_clips"]


@pytest.fixture(scope="module")
def two_clips(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("two")
    return [str(make_clip(folder / f"clip_{i}.mp4", clip_id=i, frame_count=20)) for i in range(2)]


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no such file"),
    "text": (footage.write_text_as_video, "can't be read as a video"),
    "m3u8": (lambda path: footage.write_playlist_as_video(path, path.parent / "good.mp4", "m3u8"), "can't be read"),
    "ffconcat": (lambda path: footage.write_playlist_as_video(path, path.parent / "good.mp4", "ffconcat"), "can't be"),
    "no index": (footage.write_without_index, "can't be read as a video"),
    "cut short": (footage.write_cut_short, "truncated"),
    "sound only": (footage.write_sound_only, "has no video stream"),
    "empty": (footage.write_empty, "can't be read as a video"),
    "no frames": (footage.write_without_frames, "bad.mp4"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_refused_by_name_and_nothing_is_written(kind: str, tmp_path: Path) -> None:
    make, reason = BAD_FILES[kind]
    good, bad, base = tmp_path / "good.mp4", tmp_path / "bad.mp4", tmp_path / "out"
    make_clip(good, clip_id=0, frame_count=20)
    make(bad)
    result = invoke([str(good), str(bad), "--model", "crossfade", "--output-base-dir", str(base)])
    assert result.exit_code == 2
    assert "bad.mp4" in result.stderr and reason in result.stderr
    assert result.stdout == "" and not base.exists()


BAD_OPTIONS = {
    "gap 0": (["--gap-frames", "0"], "gap_frame_count"),
    "blend larger than context": (["--blend-frames", "9"], "set blend_frames to at most 8"),
    "a clip too short": (["--replace-mode", "--gap-frames", "80"], "gap_frame_count of at most"),
    "run_id with a slash": (["--run-id", "a/b"], "run_id"),
    "unknown model": (["--model", "dreamer"], "model dreamer is unknown"),
    "default model without a GPU": (["--model", "lightning_baseline_2_2_2"], "needs a CUDA GPU"),
    "aspect": (["--aspect-ratio", "16x9"], "16:9"),
    "resolution": (["--resolution", "1280"], "1280x720"),
    "fps": (["--fps", "fast"], "30000/1001"),
    "soundtrack": (["--soundtrack", "music.wav"], "music.wav: no such file"),
    "output by http": (["--output-base-dir", "https://host/x"], "s3://bucket/prefix"),
    "soundtrack that a script left empty": (
        ["--soundtrack", ""],
        "soundtrack: string should have at least 1 character",
    ),
    "output on another machine": (["--output-base-dir", "file://nas/joined"], "names another machine"),
    "a way to write urls that nobody knows": (["--soundtrack", "gopher://host/music.wav"], "gopher"),
    "steps of a model that has none": (["--num-inference-steps", "6"], "no num_inference_steps"),
    "size beyond any video": (["--resolution", "99999999x99999999"], "resolution"),
    "run_id empty": (["--run-id", ""], "run_id"),
    "endless fps": (["--fps", "1e400"], "30000/1001"),
    "lora without a weight": (["--lora", "style"], "NAME=WEIGHT"),
    "unknown option": (["--gap", "5"], "No such option"),
}


@pytest.mark.parametrize("kind", BAD_OPTIONS)
def test_a_bad_option_is_refused_and_nothing_is_written(kind: str, two_clips: list[str], tmp_path: Path) -> None:
    options, reason = BAD_OPTIONS[kind]
    base = tmp_path / "out"
    result = invoke([*two_clips, "--model", "crossfade", "--output-base-dir", str(base), *options])
    assert result.exit_code == 2
    assert reason in " ".join(result.stderr.split())
    assert result.stdout == "" and not base.exists()


def test_a_server_that_does_not_answer_is_named(two_clips: list[str], tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/api"
    with temporary_settings({PREFECT_API_URL: url}):
        result = invoke([*two_clips, "--model", "crossfade", "--output-base-dir", str(tmp_path / "out")])
    assert result.exit_code == 2 and not (tmp_path / "out").exists()
    assert f"PREFECT_API_URL is {url}, where no Prefect server answers" in " ".join(result.stderr.split())


def test_a_file_where_the_output_is_to_go_is_refused(two_clips: list[str]) -> None:
    result = invoke([*two_clips, "--model", "crossfade", "--output-base-dir", f"{two_clips[0]}/joined"])
    assert result.exit_code == 2 and f"{two_clips[0]} is a file" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ('[{"gap": 3}]', "per_join_settings.0.gap: unknown key; known are prompt"),
        ('[{"gap_frame_count": 3}, {}]', "2 entries, but 2 clips make 1 joins"),
        ('{"gap_frame_count": 3}', "per_join_settings"),
        ("[{]", "is no JSON"),
    ],
)
def test_bad_per_join_settings_are_refused(settings: str, reason: str, two_clips: list[str], tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(settings)
    base = tmp_path / "out"
    arguments = [*two_clips, "--model", "crossfade", "--per-join-settings", str(file), "--output-base-dir", str(base)]
    result = invoke(arguments)
    assert result.exit_code == 2 and reason in " ".join(result.stderr.split()) and not base.exists()


def test_names_that_look_like_markup_are_told_as_they_are(tmp_path: Path) -> None:
    missing = str(tmp_path / "[/bold] [final] :smile:.mp4")
    result = invoke([missing, missing, "--model", "crossfade"])
    assert result.exit_code == 2 and missing in result.stderr


def test_one_clip_is_refused(two_clips: list[str]) -> None:
    result = invoke([two_clips[0], "--model", "crossfade"])
    assert result.exit_code == 2 and "at least 2 clips" in result.stderr


def invoke(arguments: list[str]) -> Result:
    return CliRunner().invoke(app, arguments)


def test_without_a_server_the_last_line_is_the_path_of_the_video(two_clips: list[str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    options = ["--model", "flow_morph", "--gap-frames", "4", "--run-id", "first", "--output-base-dir", str(tmp_path)]
    done = subprocess.run(
        [*COMMAND, *two_clips, *options, "--max-seam-score", "0"],
        cwd=ROOT,
        env={**environment, "HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    video = Path(done.stdout.splitlines()[-1])
    assert video == RunFolder.of(str(tmp_path), "first").joined_output("join_0")
    assert len(read_codes(video)) == 44
    assert "join_0: 40 frames copied (" in done.stderr and "4 encoded (" in done.stderr
    assert "in all 44 frames, 1.8 s: 40 frames copied (" in done.stderr
    assert str(video.with_name("report.html")) in done.stderr
    assert "seam 0 is worse than max_seam_score 0.0: look at it" in done.stderr
    assert "prefect" not in done.stderr.lower(), "Prefect's own log has no place here"


def test_ctrl_c_ends_a_run_at_once_and_says_how_to_go_on(tmp_path: Path) -> None:
    clips = [str(make_clip(tmp_path / f"{i}.mp4", clip_id=i, frame_count=60, size=(960, 540))) for i in range(2)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [*COMMAND, *clips, "--model", "crossfade", "--run-id", "stopped", "--resolution", "1920x1080"]
    process = subprocess.Popen(
        [*command, "--output-base-dir", str(tmp_path)],
        cwd=ROOT,
        env={**environment, "PREFECT_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: any((RunFolder.of(str(tmp_path), "stopped").path / "units").glob("*")), process)
    # As a terminal does: to every process in the group, so that Prefect's temporary server dies as well.
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130 and stdout == ""
    assert "interrupted; the same command with --run-id stopped goes on here" in stderr


def test_json_and_a_request_that_differs(two_clips: list[str], tmp_path: Path, prefect_server: PrefectServer) -> None:
    options = ["--model", "crossfade", "--gap-frames", "4", "--run-id", "as-json", "--output-base-dir", str(tmp_path)]

    def call(*more: str) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *two_clips, *options, *more]
        return subprocess.run(command, cwd=ROOT, env=prefect_server.environment, capture_output=True, text=True)

    result = json.loads(call("--json").stdout)
    assert result["output"]["frames"] == 44 and Path(result["output"]["path"]).is_file()

    other = call("--gap-frames", "5")
    assert other.returncode == 2 and other.stdout == ""
    assert "gap_frame_count was 4, now it is 5" in other.stderr


def test_a_run_killed_in_the_middle_of_a_join_goes_on_there(tmp_path: Path, prefect_server: PrefectServer) -> None:
    # Big enough that a join takes a moment, so that the kill finds the second one at work.
    clips = [
        str(make_clip(tmp_path / f"{i}.mp4", clip_id=i, frame_count=40, size=(960, 540), gop_frames=12))
        for i in range(4)
    ]
    options = ["--model", "flow_morph", "--gap-frames", "8", "--output-base-dir", str(tmp_path), "--run-id"]
    command = [*COMMAND, *clips, *options]
    folder = RunFolder.of(str(tmp_path), "killed")
    records = prefect_server.storage / "join-clips" / "killed"

    process = subprocess.Popen([*command, "killed"], cwd=ROOT, env=prefect_server.environment, start_new_session=True)
    # Its video is written, its contact sheet, report and record are not.
    wait_for(folder.joined_output("join_1").exists, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not any(records.glob("join_1-*")), "join 1 must have been killed at work"
    recorded = {record.name.rsplit("-", 1)[0] for record in records.iterdir()}
    assert {"join_0", "join_0_transition", "join_1_transition"} <= recorded
    steps = {"join_0": folder.joined_output("join_0"), "join_2_transition": folder.join("join_2") / "transition.mp4"}
    steps |= {f"join_{k}_transition": folder.join(f"join_{k}") / "transition.mp4" for k in range(3)}
    before = {path: path.stat().st_mtime_ns for step, path in steps.items() if step in recorded}

    # The kernel has freed the lock, and the server frees the lease: the same command goes on.
    again = subprocess.run(
        [*command, "killed"], cwd=ROOT, env=prefect_server.environment, capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not list(folder.path.rglob(".partial-*"))

    undisturbed = subprocess.run([*command, "calm"], cwd=ROOT, env=prefect_server.environment, capture_output=True)
    assert undisturbed.returncode == 0
    assert frame_hashes(folder.joined_output("join_2")) == frame_hashes(
        RunFolder.of(str(tmp_path), "calm").joined_output("join_2")
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def frame_hashes(video: Path) -> str:
    ffmpeg = shutil.which("ffmpeg")
    assert ffmpeg, "Debian's ffmpeg is the independent decoder here: make debian"
    command = [ffmpeg, "-v", "error", "-i", str(video), "-f", "framemd5", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout
