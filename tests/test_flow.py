"""The flow on a real Prefect server: the chain, its records, and what a second run does."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import opentimelineio as otio
import pytest
import soundfile
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import TaskRun
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings
from prefect.states import State

from flows.join_clips import join_clips
from splice.layout import RunFolder
from splice.records import JoinResult
from tasks import steps
from tests.footage import make_clip, read_codes, read_pictures

pytestmark = pytest.mark.usefixtures("prefect_server")

GAP = 5
STEPS = {"clip_2_body", "join_0_transition", "join_1_transition", "join_0", "join_1"}
"""Of two clips that are copied and one that has to be conformed."""


def run(clips: list[Path], run_id: str, base: Path, **settings: Any) -> State[Any]:
    parameters = {"model": "crossfade", "gap_frame_count": GAP, "output_base_dir": str(base), **settings}
    return join_clips(clip_list=[{"url": str(clip)} for clip in clips], run_id=run_id, return_state=True, **parameters)


def task_runs(state: State[Any], expected: int) -> dict[str, TaskRun]:
    """The flow run's task runs by name; the server learns of them a moment after they end."""
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    deadline = time.monotonic() + 20
    with get_client(sync_client=True) as client:
        while True:
            runs = client.read_task_runs(flow_run_filter=wanted)
            # What waits for a failed step stays NotReady for ever.
            ended = (run.state and (run.state.is_final() or run.state.name == "NotReady") for run in runs)
            settled = len(runs) >= expected and all(ended)
            if settled or time.monotonic() > deadline:
                return {run.name.rsplit("-", 1)[0]: run for run in runs}
            time.sleep(0.2)


def executed(state: State[Any], expected: int) -> set[str]:
    """Names of the steps that really ran: neither taken from a record nor held back."""
    runs = task_runs(state, expected)
    return {name for name, run in runs.items() if run.state and run.state.name in ("Completed", "Failed")}


def shows(video: Path, expected: list[tuple[int, int] | None]) -> bool:
    """Whether the video's frames are those, in order; None stands for a generated one, whatever it looks like."""
    codes = read_codes(video)
    return len(codes) == len(expected) and all(want in (None, code) for want, code in zip(expected, codes, strict=True))


def folder_of(base: Path, run_id: str) -> RunFolder:
    return RunFolder.of(str(base), run_id)


@pytest.fixture(scope="module")
def mixed_clips(numbered_clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three clips; the last has another size."""
    other = make_clip(tmp_path_factory.mktemp("mixed") / "other.mp4", clip_id=2, frame_count=28, size=(208, 120))
    return [*numbered_clips[:2], other]


def test_the_joins_form_a_chain_and_the_last_is_the_result(mixed_clips: list[Path], tmp_path: Path) -> None:
    state = run(mixed_clips, "chain", tmp_path)

    folder = folder_of(tmp_path, "chain")
    first = [*((0, n) for n in range(30)), *[None] * GAP, *((1, n) for n in range(26))]
    assert shows(folder.joined_output("join_0"), first)
    assert shows(folder.joined_output("join_1"), [*first, *[None] * GAP, *((2, n) for n in range(28))])

    assert state.is_completed() and str(folder.joined_output("join_1")) in str(state.message)
    result = state.result()
    assert isinstance(result, JoinResult)
    assert Path(result.output.path) == folder.joined_output("join_1") and result.output.frames == 94

    runs = task_runs(state, len(STEPS) + 2)
    upstream = {each.id for inputs in runs["join_1"].task_inputs.values() for each in inputs if hasattr(each, "id")}
    assert {runs[name].id for name in ("join_0", "join_1_transition", "clip_2_body")} <= upstream
    assert "__parents__" not in runs["join_1"].task_inputs, "Prefect's UI would hide the chain inside its first join"


def test_each_join_tells_what_it_is_made_of(mixed_clips: list[Path], tmp_path: Path) -> None:
    run(mixed_clips, "told", tmp_path)

    folder = folder_of(tmp_path, "told")
    report = json.loads((folder.join("join_1") / "report.json").read_text())
    assert report["frames"] == 94
    copied, encoded = report["total"]["passthrough"], report["total"]["encode"]
    assert copied["frames"] == 30 + 26 and copied["why"] == {"fits as it is": 56}
    assert encoded["frames"] == 2 * GAP + 28
    assert encoded["why"] == {"generated": 2 * GAP, "conformed: size 208x120 -> 192x108": 28}
    assert report["this_join"]["encode"]["frames"] == GAP + 28 and report["this_join"]["passthrough"]["frames"] == 0
    assert 0 < copied["bytes"] + encoded["bytes"] < folder.joined_output("join_1").stat().st_size
    (seam,) = report["seams"]
    assert seam["model"]["name"] == "crossfade" and seam["gap_frames"] == GAP
    assert seam["score"] == pytest.approx(sum(seam["penalties"].values()), abs=0.01)
    assert (folder.join("join_1") / "report.html").stat().st_size > 10_000
    assert (folder.join("join_1") / "contact_sheet.jpg").stat().st_size > 1000
    assert render(folder.join("join_1") / "timeline.otio") == read_codes(folder.joined_output("join_1"))


def test_a_stitch_shows_the_frames_of_the_chain_and_is_resumed_alike(mixed_clips: list[Path], tmp_path: Path) -> None:
    chain = run(mixed_clips, "chained", tmp_path)
    state = run(mixed_clips, "stitched", tmp_path, strategy="parallel")

    stitched = Path(state.result().output.path)
    assert stitched == folder_of(tmp_path, "stitched").path / "stitch" / "joined_output.mp4"
    pictures = [[picture.tobytes() for picture in read_pictures(video)] for video in (stitched, chained_video(chain))]
    assert pictures[0] == pictures[1]
    assert len(list(stitched.parent.glob("contact_sheet_*.jpg"))) == 2

    stitched.unlink()
    again = run(mixed_clips, "stitched", tmp_path, strategy="parallel")
    assert again.is_completed() and executed(again, 5) == {"stitch", "publish-result"}


def chained_video(state: State[Any]) -> Path:
    return Path(state.result().output.path)


def render(timeline: Path) -> list[tuple[int, int] | None]:
    """The frame numbers that a timeline.otio says the video has, read from the media that it names."""
    shown = []
    for clip in otio.adapters.read_from_file(str(timeline)).find_clips():
        frames = read_codes((timeline.parent / clip.media_reference.target_url).resolve())
        start, length = (int(time.value) for time in (clip.source_range.start_time, clip.source_range.duration))
        shown += frames[start : start + length]
    return shown


def test_the_same_run_id_again_executes_nothing(numbered_clips: list[Path], tmp_path: Path) -> None:
    run(numbered_clips[:3], "again", tmp_path)
    folder = folder_of(tmp_path, "again")
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*.*") if path != folder.lock}

    state = run(numbered_clips[:3], "again", tmp_path)

    assert state.is_completed() and "Already finished" in str(state.message)
    assert state.result().output.path == str(folder.joined_output("join_1"))
    assert executed(state, 1) == set()
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"gap_frame_count": 6}, "gap_frame_count was 5, now it is 6"),
        ({"per_join_settings": [{"gap_frame_count": 6}]}, "per_join_settings"),
        ({"loop": True}, "loop was False"),
    ],
)
def test_the_same_run_id_with_other_settings_fails_and_names_them(
    numbered_clips: list[Path], tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    run_id = f"taken-{next(iter(changes))}"
    run(numbered_clips[:2], run_id, tmp_path)
    state = run(numbered_clips[:2], run_id, tmp_path, **changes)
    assert state.is_failed() and named in str(state.message)


def test_the_same_run_id_with_a_changed_clip_fails_and_names_it(tmp_path: Path) -> None:
    clips = [make_clip(tmp_path / f"{i}.mp4", clip_id=i, frame_count=12) for i in range(2)]
    run(clips, "changed-clip", tmp_path)
    make_clip(clips[1], clip_id=5, frame_count=12)
    state = run(clips, "changed-clip", tmp_path)
    assert state.is_failed() and "clip 1.mp4" in str(state.message) and "has changed" in str(state.message)


def test_the_same_run_id_with_changed_music_fails_and_names_it(tmp_path: Path) -> None:
    clips = [make_clip(tmp_path / f"{i}.mp4", clip_id=i, frame_count=12) for i in range(2)]
    music = tmp_path / "music.wav"
    soundfile.write(music, np.zeros(4800), 48_000)
    assert run(clips, "music", tmp_path, soundtrack=str(music)).is_completed()
    soundfile.write(music, np.full(4800, 0.1), 48_000)
    state = run(clips, "music", tmp_path, soundtrack=str(music))
    assert state.is_failed() and f"the soundtrack ({music}) has changed since" in str(state.message)


def test_a_clip_that_was_only_touched_is_the_same_clip(tmp_path: Path) -> None:
    clips = [make_clip(tmp_path / f"{i}.mp4", clip_id=i, frame_count=12) for i in range(2)]
    run(clips, "touched", tmp_path)
    clips[1].touch()
    state = run(clips, "touched", tmp_path)
    assert state.is_completed() and "Already finished" in str(state.message)


def test_a_failed_join_ends_the_run_and_the_next_run_goes_on_there(numbered_clips: list[Path], tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "resume")
    # A folder that stands where the video should go: the rename at the end of join 1 fails.
    obstacle = folder.joined_output("join_1") / "in the way"
    obstacle.mkdir(parents=True)

    failed = run(numbered_clips, "resume", tmp_path)

    assert failed.is_failed() and not failed.is_crashed()
    assert str(failed.message).startswith("join_1 failed: ") and "joined_output.mp4" in str(failed.message)
    runs = task_runs(failed, 7)
    assert runs["join_0"].state.name == "Completed" and runs["join_1"].state.name == "Failed"
    assert "join_2" not in executed(failed, 7), "a later join must never start after a failure"
    assert not folder.joined_output("join_2").exists()
    first = folder.joined_output("join_0").stat()

    shutil.rmtree(folder.joined_output("join_1"))
    state = run(numbered_clips, "resume", tmp_path)

    assert state.is_completed()
    assert executed(state, 8) == {"join_1", "join_2", "publish-result"}
    assert folder.joined_output("join_0").stat() == first
    sources = [[(i, n) for n in range(frames)] for i, frames in enumerate((30, 26, 28, 24))]
    expected = [*sources[0], *(code for source in sources[1:] for code in [*[None] * GAP, *source])]
    assert shows(folder.joined_output("join_2"), expected)


def test_a_record_whose_output_is_missing_or_changed_is_not_believed(
    numbered_clips: list[Path], tmp_path: Path
) -> None:
    whole = run(numbered_clips[:3], "not-believed", tmp_path)
    folder = folder_of(tmp_path, "not-believed")
    expected = folder.joined_output("join_1").read_bytes()
    assert whole.is_completed()

    folder.joined_output("join_1").unlink()
    state = run(numbered_clips[:3], "not-believed", tmp_path)
    assert executed(state, 6) == {"join_1", "publish-result"}
    assert folder.joined_output("join_1").read_bytes() == expected

    damaged = bytearray(expected)
    damaged[len(damaged) // 2] ^= 0xFF
    folder.joined_output("join_1").write_bytes(damaged)
    (folder.join("join_1") / "transition.mp4").unlink()
    state = run(numbered_clips[:3], "not-believed", tmp_path)
    assert executed(state, 6) == {"join_1_transition", "join_1", "publish-result"}
    assert folder.joined_output("join_1").read_bytes() == expected


def test_a_run_id_is_known_by_its_folder_where_its_records_are_not(numbered_clips: list[Path], tmp_path: Path) -> None:
    """Another machine with other result storage, or another user, on a shared disk."""
    assert run(numbered_clips[:2], "shared", tmp_path / "out").is_completed()
    video = folder_of(tmp_path / "out", "shared").joined_output("join_0")
    made = video.read_bytes()
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path / "other"}):
        other = run(numbered_clips[1::-1], "shared", tmp_path / "out")
        assert other.is_failed() and "run_id shared is taken by another request: clip_list was" in str(other.message)
        assert video.read_bytes() == made
        assert run(numbered_clips[:2], "shared", tmp_path / "out").is_completed()
    assert video.read_bytes() == made


def test_a_clip_that_is_replaced_while_the_run_reads_it_makes_no_video(
    numbered_clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be it before the join opens it, or while the join copies it."""
    clip = tmp_path / "replaced.mp4"

    def replacing(frames: Iterable[Any], at_frame: int, description: str, **told: Any) -> Iterator[Any]:
        for number, frame in enumerate(frames):
            if description == "join_0" and number == at_frame:
                # What no reader stumbles over.
                with clip.open("ab") as opened:
                    opened.write(bytes(16))
            yield frame

    for how, at_frame in (("before", 1), ("while", 30 + GAP + 2)):
        shutil.copy(numbered_clips[1], clip)
        with monkeypatch.context() as patched:
            patched.setattr(steps, "tracked", partial(replacing, at_frame=at_frame))
            state = run([numbered_clips[0], clip], f"replaced-{how}", tmp_path)
        assert state.is_failed() and "replaced.mp4: has changed since this run began" in str(state.message), state
        assert not folder_of(tmp_path, f"replaced-{how}").joined_output("join_0").exists()
        # As the message says.
        shutil.copy(numbered_clips[1], clip)
        assert run([numbered_clips[0], clip], f"replaced-{how}", tmp_path).is_completed()
        assert shows(
            folder_of(tmp_path, f"replaced-{how}").joined_output("join_0"),
            [*((0, n) for n in range(30)), *[None] * GAP, *((1, n) for n in range(26))],
        )


def test_a_run_that_is_in_progress_elsewhere_is_left_alone(numbered_clips: list[Path], tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "held")
    folder.path.mkdir(parents=True)
    with folder.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = run(numbered_clips[:3], "held", tmp_path)
    assert state.name == "AlreadyInProgress" and state.is_completed()
    assert "held" in str(state.message) and "0 of 2 joins" in str(state.message)
    assert executed(state, 0) == set()


def test_half_written_files_of_a_killed_run_are_deleted(numbered_clips: list[Path], tmp_path: Path) -> None:
    leftover = folder_of(tmp_path, "leftover").join("join_0") / ".partial-abc.mp4"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    # A try at a seam with a gate has a folder of its own.
    units = folder_of(tmp_path, "leftover").path / ".partial-join_0-abc" / "new" / "join_0"
    units.mkdir(parents=True)
    (units / ".partial-abc.mp4").write_bytes(b"half")
    assert run(numbered_clips[:2], "leftover", tmp_path).is_completed()
    assert not list(folder_of(tmp_path, "leftover").path.rglob(".partial-*"))


def test_a_bad_request_fails_the_run_before_anything_is_written(numbered_clips: list[Path], tmp_path: Path) -> None:
    state = run(numbered_clips[:2], "bad", tmp_path, replace_mode=True, gap_frame_count=500)
    assert state.is_failed() and "gap_frame_count of at most" in str(state.message)
    assert list(tmp_path.iterdir()) == []


def test_without_a_place_for_records_nothing_is_begun(numbered_clips: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path / "file" / "records"}):
        state = run(numbered_clips[:2], "unrecorded", tmp_path)
    assert state.is_failed() and f"can't be kept in Prefect's result storage ({tmp_path / 'file'}" in str(state.message)
    assert not folder_of(tmp_path, "unrecorded").join("join_0").exists()


def test_a_loop_closes_and_every_earlier_join_is_complete(numbered_clips: list[Path], tmp_path: Path) -> None:
    state = run(numbered_clips[:2], "loop", tmp_path, loop=True, replace_mode=True)
    folder = folder_of(tmp_path, "loop")
    assert state.is_completed()
    # Five frames replaced at each seam: two of the left clip, three of the right one.
    gap = [None] * GAP
    assert shows(folder.joined_output("join_0"), [*((0, n) for n in range(28)), *gap, *((1, n) for n in range(3, 26))])
    closed = [*((0, n) for n in range(3, 28)), *gap, *((1, n) for n in range(3, 24)), *gap]
    assert shows(folder.joined_output("join_1"), closed)
