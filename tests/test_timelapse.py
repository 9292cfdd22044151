"""Batches: which are found, which are left alone, and what a run over them does, on a real server and a real worker."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterType,
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.flows import Flow
from prefect.schedules import Interval
from prefect.states import State

from flows.timelapse_batch import timelapse_batch
from splice.batches import (
    Batch,
    BatchRecord,
    ClipFile,
    Outcome,
    check_settings,
    difference,
    find_batches,
    judge,
    natural_order,
    normal_source,
    summary,
    why_not_settled,
)
from splice.errors import RequestError
from splice.layout import RunFolder
from splice.storage import Entry, list_folder
from tasks.batches import look_for_batches
from tests.conftest import ROOT, PrefectServer, end_worker
from tests.footage import make_clip, read_codes, write_text_as_video
from tests.s3_server import run_s3_server

NOW = 1_000_000.0
LONG_AGO = NOW - 10_000
YEARS_AGO = 1.6e9
POOL = "timelapse"


def file(name: str, size_bytes: int = 9, modified_seconds: float = LONG_AGO, folder: str = "/in/day1") -> Entry:
    return Entry(
        name=name, url=f"{folder}/{name}", size_bytes=size_bytes, modified_seconds=modified_seconds, is_folder=False
    )


def folder(name: str, url: str = "", modified_seconds: float = LONG_AGO) -> Entry:
    return Entry(name=name, url=url or f"/in/{name}", size_bytes=0, modified_seconds=modified_seconds, is_folder=True)


def batch(*files: Entry, name: str = "day1", modified_seconds: float = LONG_AGO) -> Batch:
    (found,) = find_batches([folder(name, modified_seconds=modified_seconds)])
    return found.with_files(files)


def names(found: Batch) -> list[str]:
    return [clip.name for clip in found.clips]


def test_clips_are_taken_in_the_order_of_their_numbers() -> None:
    shuffled = ["clip10.mp4", "Clip3.MP4", "clip2.mp4", "clip.mp4", "clip02b.mp4", "a 1.mov", "a 01.mov"]
    ordered = ["a 01.mov", "a 1.mov", "clip.mp4", "clip2.mp4", "clip02b.mp4", "Clip3.MP4", "clip10.mp4"]
    assert names(batch(*map(file, shuffled))) == names(batch(*map(file, shuffled[::-1]))) == ordered
    assert [each.name for each in find_batches(map(folder, ("day10", "day9")))] == ["day9", "day10"]
    assert natural_order("7") < natural_order("a"), "numbers and words can be told apart"


def test_only_videos_are_clips() -> None:
    others = ["notes.txt", "cover.jpg", ".DS_Store", "._clip1.mp4", ".clip9.mp4", "list.m3u8"]
    videos = ["a.mp4", "b.MOV", "c.mkv", "d.webm", "e.ts", "f.mpg", "g.avi", "h.m4v"]
    found = batch(*map(file, [*others, *videos]), folder("i.mp4", "/in/day1/i.mp4"))
    assert names(found) == videos


def test_batches_are_the_folders_that_are_not_hidden() -> None:
    found = find_batches([folder("day1"), folder(".trash"), file("clip1.mp4")])
    assert [each.name for each in found] == ["day1"]


def test_no_two_batches_share_a_run_id() -> None:
    urls = [
        "/in/Day 1",
        "/in/day-1",
        "/in/day_1",
        "/other/Day 1",
        "s3://in/Day 1",
        "/in/日本",
        "/in/韓国",
        "/in/" + "x" * 200,
    ]
    found = find_batches(folder(url.rpartition("/")[2], url) for url in urls)
    run_ids = {each.run_id for each in found}
    assert len(run_ids) == len(urls)
    for run_id in run_ids:
        assert len(run_id) <= 53 and set(run_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert next(each for each in found if each.url == "/in/Day 1").run_id.startswith("day-1-")


def test_a_source_has_one_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in a").mkdir()
    spellings = ["in a", "./in a/", f"{tmp_path}/in a", f"file://{tmp_path}/in%20a"]
    assert {normal_source(each) for each in spellings} == {f"{tmp_path}/in a"}
    assert normal_source("s3://bucket/day/") == normal_source("s3://bucket/day") == "s3://bucket/day"
    with pytest.raises(RequestError, match="got https://; needed: the path of a folder, file:// or s3://"):
        normal_source("https://somewhere/clips/")


def test_an_odd_entry_costs_no_more_than_its_own_batch(tmp_path: Path) -> None:
    for name in ("day1", os.fsdecode(b"caf\xe9")):
        (tmp_path / name).mkdir()
    for loop in (tmp_path / "loop", tmp_path / "day1" / "loop"):
        loop.symlink_to(loop)
    for clip in ("a.mp4", "b.mp4"):
        (tmp_path / "day1" / clip).touch()
    found = {each.name: each for each in look_for_batches.fn(str(tmp_path))}
    assert names(found["day1"]) == ["a.mp4", "b.mp4"] and not found["day1"].problem
    assert "no such folder, or its name is no UTF-8" in found["caf\ufffd"].problem
    assert {each.run_id for each in found.values()} and [each.model_dump_json() for each in found.values()]


@pytest.mark.parametrize(
    "unfinished",
    [
        *("clip3.mp4.part", "clip3.mp4.crdownload", "upload.tmp", "clip3.MP4.TMP", "clip3.mp4.filepart"),
        *(".clip3.mp4.Xb3kQ1", ".syncthing.clip3.mp4.tmp", ".in.clip3.mp4.", ".clip3.mp4"),
    ],
)
def test_a_batch_with_an_unfinished_file_is_left_alone_however_old_it_is(unfinished: str) -> None:
    found = batch(file("clip1.mp4"), file("clip2.mp4"), file(unfinished))
    reason = why_not_settled(found, NOW, 120)
    assert reason is not None and reason.startswith(unfinished)


@pytest.mark.parametrize("harmless", [".DS_Store", "._clip1.mp4", "Thumbs.db", "notes.txt"])
def test_what_lies_beside_the_clips_holds_no_batch_up(harmless: str) -> None:
    assert why_not_settled(batch(file("a.mp4"), file("b.mp4"), file(harmless, modified_seconds=NOW)), NOW, 120) is None


@pytest.mark.parametrize(
    ("clip_age", "folder_age", "named"),
    [
        (119, 9000, "b.mp4 changed 119 s ago"),
        (9000, 5, "the folder changed 5 s ago"),
        (-60, 9000, "b.mp4 changed 0 s ago"),
        (121, 121, None),
        (-9000, 9000, None),
    ],
)
def test_a_batch_is_settled_once_all_has_been_left_alone(clip_age: float, folder_age: float, named: str | None) -> None:
    files = [file("a.mp4"), file("b.mp4", modified_seconds=NOW - clip_age)]
    reason = why_not_settled(batch(*files, modified_seconds=NOW - folder_age), NOW, 120)
    assert reason is None if named is None else reason is not None and reason.startswith(named)


def record_of(found: Batch) -> BatchRecord:
    return BatchRecord(run_id=found.run_id, url=found.url, clips=found.clips, result="/out/video.mp4")


@pytest.mark.parametrize(
    ("now", "change"),
    [
        ([file("a.mp4"), file("b.mp4", size_bytes=10)], "b.mp4 has changed"),
        ([file("a.mp4"), file("b.mp4", modified_seconds=LONG_AGO + 1)], "b.mp4 has changed"),
        ([file("a.mp4"), file("b.mp4"), file("c.mp4")], "c.mp4 is new"),
        ([file("a.mp4")], "b.mp4 is gone"),
        ([file(f"{n}.mp4") for n in range(9)], "a.mp4 is gone, b.mp4 is gone, 0.mp4 is new and 8 more"),
    ],
)
def test_a_batch_that_changed_after_it_was_done_is_skipped_and_says_how(now: list[Entry], change: str) -> None:
    done = record_of(batch(file("a.mp4"), file("b.mp4")))
    outcome = judge(batch(*now), done, NOW, 120)
    assert outcome is not None and (outcome.status, outcome.verdict) == ("changed", "skipped")
    assert outcome.detail.startswith(f"{change} since it was joined (/out/video.mp4)")


def test_a_batch_is_judged_by_its_record_its_rest_and_its_clips() -> None:
    whole = batch(file("a.mp4"), file("b.mp4"))
    assert judge(whole, None, NOW, 120) is None
    outcome = judge(whole, record_of(whole), NOW, 120)
    assert outcome is not None and (outcome.status, outcome.detail) == ("already done", "/out/video.mp4")
    growing = judge(batch(file("a.mp4", modified_seconds=NOW)), None, NOW, 120)
    assert growing is not None and growing.status == "still being written"
    closed = judge(whole.with_problem("no right to read it"), None, NOW, 120)
    assert closed is not None and (closed.status, closed.detail) == ("failed", "no right to read it")
    single = judge(batch(file("a.mp4"), file("notes.txt")), None, NOW, 120)
    assert single is not None and single.status == "too few clips" and single.detail.startswith("1 here")


def test_a_record_survives_being_kept() -> None:
    clips = (ClipFile(name="a.mp4", url="/in/a.mp4", size_bytes=1, modified_seconds=1763910000.123456789),)
    record = BatchRecord(run_id="a-1", url="/in", clips=clips, result="/out/a.mp4")
    assert BatchRecord.model_validate_json(record.model_dump_json()) == record
    assert difference(record.clips, clips) is None


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"gap_frames": 5}, "settings: gap_frames: unknown key; known are "),
        ({"gap_frame_count": 0}, "settings: gap_frame_count: "),
        ({"run_id": "x"}, "settings.run_id: every batch has its own; leave it out"),
        ({"clip_list": []}, "settings.clip_list: every batch has its own"),
        ({"per_join_settings": [{"prompts": "x"}]}, "settings: per_join_settings.0.prompts: unknown key"),
        ({"blend_frames": 9}, "set blend_frames to at most 8"),
    ],
)
def test_wrong_settings_are_refused_and_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(RequestError) as refused:
        check_settings(settings)
    assert named in str(refused.value)


def test_right_settings_pass_whatever_the_number_of_clips() -> None:
    check_settings({"model": "crossfade", "per_join_settings": [{"gap_frame_count": 5}] * 7, "loop": True})


def test_the_summary_counts_and_names_what_failed() -> None:
    outcomes = [
        *[Outcome(batch=batch(name=f"d{n}"), status="already done", detail="") for n in range(2)],
        Outcome(batch=batch(name="b"), status="changed", detail=""),
        Outcome(batch=batch(name="c"), status="done", detail="/out"),
        *[Outcome(batch=batch(name=f"f{n}"), status="failed", detail="no") for n in range(5)],
    ]
    assert summary(outcomes) == (
        "1 done, 3 skipped (2 already done, 1 changed), 5 failed; f0: no; f1: no; f2: no; and 2 more, see the table"
    )


def deploy(name: str, entrypoint: str = "flows/join_clips.py:join_clips", **more: Any) -> str:
    flow: Flow[..., Any] = Flow.from_source(str(ROOT), entrypoint=entrypoint)  # type: ignore[assignment]
    flow.deploy(name, work_pool_name=POOL, build=False, ignore_warnings=True, print_next_steps=False, **more)
    return f"{flow.name}/{name}"


@pytest.fixture(scope="module")
def deployment(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A deployment of join-clips on a process pool, and one of Prefect's own workers for it."""
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    home = tmp_path_factory.mktemp("worker")
    environment = {**prefect_server.environment, "PREFECT_HOME": str(home), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL]
    with (home / "worker.log").open("w") as log:
        worker = subprocess.Popen(command, env=environment, cwd=home, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield deploy("timelapse")
    finally:
        end_worker(worker)


def run(source: Path | str, deployment: str, **more: Any) -> State[Any]:
    settings = {"model": "crossfade", "gap_frame_count": 5, "output_base_dir": str(Path(source).parent / "out")}
    settings.update(more.pop("settings", {}))
    return timelapse_batch(str(source), deployment=deployment, settings=settings, return_state=True, **more)


def children(state: State[Any]) -> list[FlowRun]:
    """The runs that a batch run started, by the API's word, in order of their creation."""
    parent = FlowRunFilterParentFlowRunId(any_=[state.state_details.flow_run_id])
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=parent))
    return sorted(found, key=lambda child: child.created)  # type: ignore[arg-type,return-value]


def table(state: State[Any]) -> dict[str, dict[str, Any]]:
    """The rows of the table that a run ended with, by batch."""
    wanted = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]),
        type=ArtifactFilterType(any_=["table"]),
    )
    with get_client(sync_client=True) as client:
        (found,) = client.read_artifacts(artifact_filter=wanted)
    return {row["batch"]: row for row in json.loads(str(found.data))}


def outcomes(state: State[Any]) -> dict[str, str]:
    return {name: row["outcome"] for name, row in table(state).items()}


def write_batch(place: Path, *clip_names: str) -> Path:
    """A folder of clips of 12 frames, in the order of their names, that nobody has touched for long."""
    for clip_id, name in enumerate(clip_names):
        make_clip(place / name, clip_id=clip_id, frame_count=12)
    let_rest(place)
    return place


def clips_in(video: Path) -> list[int]:
    """The ids of the clips that a video shows, in order."""
    return [clip_id for clip_id, _ in groupby(code[0] for code in read_codes(video) if code)]


def let_rest(place: Path) -> None:
    for path in (*place.iterdir(), place):
        os.utime(path, (YEARS_AGO, YEARS_AGO))


@contextmanager
def joined_elsewhere(place: Path) -> Iterator[None]:
    """Another process of this machine has the batch in hand."""
    held = next(each for each in find_batches(list_folder(str(place.parent))) if each.name == place.name)
    lock_file = RunFolder.of(str(place.parent.parent / "out"), held.run_id).lock
    lock_file.parent.mkdir(parents=True)
    with lock_file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Night:
    """The first run over a source of six folders: two are fine, and with each of the others something is the matter."""

    source: Path
    state: State[Any]


@pytest.fixture(scope="module")
def first_night(deployment: str, tmp_path_factory: pytest.TempPathFactory) -> Night:
    source = tmp_path_factory.mktemp("timelapse") / "in"
    write_batch(source / "alps", "clip1.mp4", "clip2.mp4", "clip10.mp4")
    write_text_as_video(write_batch(source / "beach", "clip1.mp4", "clip2.mp4") / "clip2.mp4")
    let_rest(source / "beach")
    write_batch(source / "city", "a.mp4", "b.mp4")
    write_batch(source / "single", "a.mp4")
    (write_batch(source / "uploading", "a.mp4", "b.mp4") / "b.mp4").touch()
    with joined_elsewhere(write_batch(source / "dunes", "a.mp4", "b.mp4")):
        return Night(source, run(source, deployment))


def test_every_batch_that_is_ready_is_joined_and_a_failure_holds_up_no_other(first_night: Night) -> None:
    state, rows = first_night.state, table(first_night.state)
    assert outcomes(state) == {
        "alps": "done",
        "beach": "failed",
        "city": "done",
        "dunes": "skipped: in progress",
        "single": "skipped: too few clips",
        "uploading": "skipped: still being written",
    }
    counts = "2 done, 3 skipped (1 in progress, 1 too few clips, 1 still being written), 1 failed"
    assert state.is_failed() and str(state.message).startswith(f"{counts}; beach: RequestError: ")
    assert "beach/clip2.mp4: can't be read as a video" in rows["beach"]["detail"]

    assert clips_in(Path(rows["alps"]["detail"])) == [0, 1, 2]
    assert Path(rows["city"]["detail"]).is_file()


def test_each_batch_has_a_run_of_its_own_linked_to_its_task(first_night: Night) -> None:
    runs, rows = children(first_night.state), table(first_night.state)
    expected = {rows[name]["run_id"] for name in ("alps", "beach", "city", "dunes")}
    assert sorted(child.parameters["run_id"] for child in runs) == sorted(expected)
    with get_client(sync_client=True) as client:
        for child in runs:
            assert {"timelapse-batch", f"run_id:{child.parameters['run_id']}"} <= set(child.tags)
            assert child.parent_task_run_id is not None
            (parent,) = client.read_task_run(child.parent_task_run_id).task_inputs["__parents__"]
            assert client.read_task_run(parent.id).name.startswith("join ")  # type: ignore[union-attr]


def test_no_more_batches_are_joined_at_once_than_allowed(first_night: Night) -> None:
    spans = [(child.created, child.end_time) for child in children(first_night.state)]
    at_once = [sum(begin <= now < end for begin, end in spans) for now, _ in spans]  # type: ignore[operator]
    assert len(spans) == 4 and max(at_once) == 2


def test_what_is_not_done_is_tried_again_and_nothing_is_done_twice(first_night: Night, deployment: str) -> None:
    broken = first_night.source / "beach"
    make_clip(broken / "clip2.mp4", clip_id=1, frame_count=12)
    let_rest(broken)
    uploaded = first_night.source / "uploading" / "b.mp4"
    uploaded.touch()
    second = run(first_night.source, deployment)
    rows = table(second)
    assert second.is_completed() and rows["alps"]["outcome"] == "skipped: already done"
    assert rows["alps"]["detail"] == table(first_night.state)["alps"]["detail"]
    assert rows["beach"]["outcome"] == rows["dunes"]["outcome"] == "done"
    ran = sorted(child.parameters["run_id"] for child in children(second))
    assert ran == sorted(rows[name]["run_id"] for name in ("beach", "dunes"))

    uploaded.touch()  # what takes long on a slow machine is not to let it come to rest
    third = run(first_night.source, deployment)
    assert third.is_completed() and str(third.message).startswith("0 done, 6 skipped (")
    assert children(third) == []


def test_a_batch_that_changed_after_it_was_done_is_reported_and_left_alone(first_night: Night, deployment: str) -> None:
    city = first_night.source / "city"
    video = Path(table(first_night.state)["city"]["detail"])
    before = video.stat()
    make_clip(city / "c.mp4", clip_id=2, frame_count=12)
    let_rest(city)
    state = run(first_night.source, deployment)
    row = table(state)["city"]
    assert row["outcome"] == "skipped: changed" and row["detail"].startswith("c.mp4 is new since it was joined (")
    assert row["run_id"] not in [child.parameters["run_id"] for child in children(state)]
    assert video.stat() == before


def test_a_file_that_grows_behind_the_clocks_back_holds_its_batch_up(deployment: str, tmp_path: Path) -> None:
    source = write_batch(tmp_path / "in" / "estuary", "a.mp4", "b.mp4").parent
    program = (
        "import os, sys, time\n"
        "while True:\n"
        "    with open(sys.argv[1], 'ab') as file: file.write(b'more')\n"
        "    os.utime(sys.argv[1], (1e9, 1e9)); time.sleep(0.1)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(source / "estuary" / "b.mp4")])
    try:
        state = run(source, deployment)
    finally:
        writer.kill()
        writer.wait()
    assert outcomes(state) == {"estuary": "skipped: still being written"} and children(state) == []


def test_a_schedule_starts_a_run_over_its_source(deployment: str, tmp_path: Path) -> None:
    source = write_batch(tmp_path / "in" / "lake", "a.mp4", "b.mp4").parent
    settings = {"model": "crossfade", "gap_frame_count": 5, "output_base_dir": str(tmp_path / "out")}
    soon = Interval(
        timedelta(days=1),
        anchor_date=datetime.now(UTC) + timedelta(seconds=40),
        parameters={"source": str(source), "deployment": deployment, "settings": settings},
    )
    name = deploy("soon", "flows/timelapse_batch.py:timelapse_batch", schedules=[soon])
    with get_client(sync_client=True) as client:
        own = DeploymentFilter(id=DeploymentFilterId(any_=[client.read_deployment_by_name(name).id]))
        for _ in range(240):
            ended = [run for run in client.read_flow_runs(deployment_filter=own) if run.state and run.state.is_final()]
            if ended:
                break
            time.sleep(1)
    assert ended, "no scheduled run ended"
    (run,) = ended
    assert "auto-scheduled" in run.tags
    assert str(run.state.message).startswith("1 done")  # type: ignore[union-attr]


def test_prefixes_in_s3_are_batches_like_folders(
    deployment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = write_batch(tmp_path / "clips", "clip2.mp4", "clip10.mp4")
    with run_s3_server(tmp_path / "s3") as server:
        folders = {"JOIN_CLIPS_WORK_DIR": str(tmp_path / "work"), "JOIN_CLIPS_CACHE_DIR": str(tmp_path / "cache")}
        environment = {**server.environment, **folders}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        client = server.client
        client.create_bucket(Bucket="footage")
        for clip in clips.iterdir():
            client.upload_file(str(clip), "footage", f"in/glacier/{clip.name}")
        client.put_object(Bucket="footage", Key="in/halo/clip1.mp4.part", Body=b"half")
        more = {
            "deployment": deploy("timelapse-s3", job_variables={"env": environment}),
            "settings": {"output_base_dir": "s3://footage/out"},
            "settle_seconds": 0,
        }
        first = run("s3://footage/in/", **more)
        assert outcomes(first) == {"glacier": "done", "halo": "skipped: still being written"}
        row = table(first)["glacier"]
        assert row["detail"] == f"s3://footage/out/join_clips_run_{row['run_id']}/join_0/joined_output.mp4"
        client.download_file("footage", row["detail"].removeprefix("s3://footage/"), str(tmp_path / "joined.mp4"))
        assert clips_in(tmp_path / "joined.mp4") == [0, 1]

        again = run("s3://footage/in", **more)
        assert outcomes(again)["glacier"] == "skipped: already done" and children(again) == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"settings": {"gap_frames": 5}}, "settings: gap_frames: unknown key"),
        ({"deployment": "join-clips/nowhere"}, "deployment: join-clips/nowhere is unknown to the server"),
        ({"source": "nowhere"}, "nowhere"),
    ],
)
def test_a_run_that_can_not_go_well_fails_at_once(
    deployment: str, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    source = write_batch(tmp_path / "in" / "fjord", "a.mp4", "b.mp4").parent
    asked = {"source": source, "deployment": deployment, **changes}
    state = run(Path(asked.pop("source")), asked.pop("deployment"), **asked)
    assert state.is_failed() and named in str(state.message)
    assert children(state) == []


def test_the_form_says_what_each_parameter_means() -> None:
    properties = timelapse_batch.parameters.properties
    assert list(properties) == ["source", "max_concurrent", "settings", "deployment", "settle_seconds"]
    assert timelapse_batch.parameters.required == ["source"]
    assert all(each.get("description") for each in properties.values())
    assert properties["max_concurrent"]["minimum"] == 1 and properties["max_concurrent"]["default"] == 2
