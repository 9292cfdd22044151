"""The flow ``join-clips``: clips A B C D become AB, ABC, ABCD, with a generated transition at every seam.

``python -m flows.join_clips a.mp4 b.mp4 c.mp4`` runs it from the command line.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from prefect import Task, flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote
from splice.errors import RequestError
from splice.layout import RunFolder
from splice.recipe import recipe_version, step_digests
from splice.records import JoinResult, RequestRecord, StepRecord, request_record
from splice.request import AspectRatio, ClipSource, FrameSize, JoinRequest, PerJoinSettings, RunId, parse_request
from splice.storage import RemoteIdentity, S3Access
from splice.survey import find_specs, local_files, locate_files, plan_request
from splice.types import Join, SourceFile, Timeline, Transition
from tasks.access import access_for, access_to
from tasks.artifacts import show_joins, show_progress, show_result, start_progress
from tasks.deployments import require_deployment
from tasks.guard import hold_run, other_live_runs
from tasks.pool import cancel_children_of, generate_on_pool
from tasks.progress import stopping_with_the_flow
from tasks.records import read_record, record_key, require_record
from tasks.steps import (
    fetch_source,
    generate_transition,
    join_clips_child,
    prepare_clip,
    publish_result,
    read_request,
    record_request,
    write_request,
)

BAR_SECONDS = 2.0
"""From one move of the bar to the next: each is a request, and a join may take less."""

Futures = dict[str, PrefectFuture[Any]]
Submit = Callable[..., PrefectFuture[Any]]


@flow(
    name="join-clips",
    flow_run_name="join-clips {run_id}",
    task_runner=ThreadPoolTaskRunner(max_workers=os.cpu_count() or 1),  # type: ignore[arg-type] # Prefect's own stubs
    on_cancellation=[cancel_children_of],
    on_crashed=[cancel_children_of],
)
def join_clips(
    clip_list: list[ClipSource],
    run_id: RunId,
    context_frame_count: int = 8,
    gap_frame_count: int = 53,
    replace_mode: bool = False,
    blend_frames: int = 3,
    prompt: str = "smooth transition",
    negative_prompt: str = "",
    model: str = "lightning_baseline_2_2_2",
    seed: int | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    additional_loras: dict[str, float] = {},  # noqa: B006 - a schema needs the value; nobody changes it
    generation_resolution: FrameSize | None = None,
    time_stride: int = 1,
    vid2vid_strength: float | None = None,
    enhance_prompt: bool = False,
    max_seam_score: float | None = None,
    quality_retries: int = 0,
    gpu_deployment: str | None = None,
    max_seams_in_flight: int = 32,
    aspect_ratio: AspectRatio | None = None,
    resolution: FrameSize | None = None,
    fps: float | None = None,
    loop: bool = False,
    audio: Literal["bridge", "silence", "drop"] = "bridge",
    soundtrack: str | None = None,
    soundtrack_gain_db: float = 0,
    audio_codec: Literal["aac", "flac", "opus"] = "aac",
    strategy: Literal["sequential", "parallel"] = "sequential",
    output_base_dir: str = "./outputs/",
    per_join_settings: list[PerJoinSettings] = [],  # noqa: B006
) -> State[Any]:
    """Join clips into one video, with a generated transition at every seam.

    Args:
        clip_list: at least 2 clips, each with a `url` (a path, s3:// or http(s)://) and, if you like, a `name`
        run_id: identity of the run: the same id is the same work, never done twice
        context_frame_count: frames of each side that the model sees
        gap_frame_count: frames generated at each seam
        replace_mode: generated frames replace boundary frames, instead of being inserted between the clips
        blend_frames: crossfade width on each edge of the generated span, at most context_frame_count
        prompt: what a diffusion model is told to make
        negative_prompt: what it is told to avoid; empty: the model's own
        model: flow_morph or crossfade run on any CPU; the others need a GPU and weights
        seed: empty: derived from run_id and join, and recorded
        num_inference_steps: of a diffusion model; empty: its preset's
        guidance_scale: of a diffusion model; empty: its preset's
        additional_loras: for a diffusion model: safetensors files with weights
        generation_resolution: [width, height] at which a diffusion model works; empty: its own
        time_stride: a diffusion model makes every so-many-th frame, and the rest is interpolated
        vid2vid_strength: 0 to 1, in replace_mode: a diffusion model starts from the frames being replaced
        enhance_prompt: a vision-language model writes each join's prompt
        max_seam_score: a seam that scores worse (0: can't be told from the clips) is made again with another seed
        quality_retries: how often, at most; the best try is kept
        gpu_deployment: where seams are generated, generate-transition/gpu on a fleet; empty: in this process
        max_seams_in_flight: seams that wait for that pool at once
        aspect_ratio: W:H, standardises by centre crop
        resolution: [width, height] of the result; empty: the first clip's
        fps: frame rate of the result; empty: the first clip's
        loop: a last join leads from the last clip back to the first
        audio: what the sound does across a seam: bridge it with room tone, fall silent, or no sound at all (drop)
        soundtrack: path or url of music laid under the result, repeated or cut to its length
        soundtrack_gain_db: of the music alone
        audio_codec: of the result's sound
        strategy: sequential writes every join; parallel stitches everything at once, for long lists
        output_base_dir: the result goes to join_clips_run_{run_id} in this folder, or s3://bucket/prefix
        per_join_settings: entry k overrides settings of join k
    """
    request = parse_request(locals())
    find_specs(request)
    if request.gpu_deployment:
        require_deployment("gpu_deployment", request.gpu_deployment)
    folder = RunFolder.of(request.output_base_dir, run_id)
    folder.require_place()
    access = access_for(request)
    located = locate_files(request, access)
    if ended := recall_end(request, located):
        return ended
    files = find_files(request, located, access)
    timeline = plan_request(request, files)
    with hold_run(run_id, folder) as is_held:
        if not is_held:
            return already_in_progress(run_id, folder, timeline)
        asked = request_record(request, {url: file.identity for url, file in files.items()}, recipe_version())
        return work_once(request, asked, timeline, folder)


def recall_end(request: JoinRequest, located: dict[str, RemoteIdentity]) -> State[Any] | None:
    """How the run ends at once, without a download: finished before, or its run_id stands for something else."""
    stored = read_record(record_key(request.run_id, "request"), RequestRecord)
    identities = stored.recalled(request, located) if stored else None
    if stored is None or identities is None:
        return None
    return end_of(request.run_id, stored, request_record(request, identities, recipe_version()))


def end_of(run_id: str, stored: RequestRecord, asked: RequestRecord) -> State[Any] | None:
    """How the run ends without any work, if it does."""
    if difference := stored.difference(asked):
        return taken(run_id, difference)
    if result := finished_result(run_id):
        return Completed(message=f"Already finished: {result.output.path}", data=result)
    return None


def taken(run_id: str, difference: str) -> State[Any]:
    error = RequestError(f"run_id {run_id} is taken by another request: {difference}; choose another run_id")
    return Failed(message=str(error), data=error)


def find_files(
    request: JoinRequest, located: dict[str, RemoteIdentity], access: S3Access | None
) -> dict[str, SourceFile]:
    """Every file on this machine, by url."""
    fetched = {url: fetch_source.submit(url, identity, access) for url, identity in located.items()}
    return {**local_files(request), **{url: future.result() for url, future in fetched.items()}}


def work_once(request: JoinRequest, asked: RequestRecord, timeline: Timeline, folder: RunFolder) -> State[Any]:
    """Refuse a run_id that stands for something else, return a finished result, or do what is left to do.

    Where the records are another machine's, or another user's, the run's folder still says what it was for.
    """
    noted = None if read_record(record_key(request.run_id, "request"), RequestRecord) else read_request(folder)
    if noted and (difference := noted.difference(asked)):
        return taken(request.run_id, f"{difference} (by {folder.location(folder.request)})")
    stored = recall_request(request.run_id, asked)
    if ended := end_of(request.run_id, stored, asked):
        return ended
    write_request(asked, folder)
    return work(request, timeline, folder)


def work(request: JoinRequest, timeline: Timeline, folder: RunFolder) -> State[Any]:
    """Do every step that is not done yet, and say how the run ends."""
    run_id = request.run_id
    keys = {step: record_key(run_id, step, digest) for step, digest in step_digests(timeline).items()}
    submit = partial(submit_step, keys, find_stale(timeline, keys, folder))
    # Who waits for a pool needs no core: many may, beside the few that work.
    waiters: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=request.max_seams_in_flight)
    with waiters, stopping_with_the_flow():
        made = submit_segments(timeline, submit, folder) | submit_seams(request, timeline, submit, folder, waiters)
        joins = submit_joins(timeline, submit, made, folder)
        follow(run_id, joins)
        wait([*made.values(), *joins.values()])
    show_joins(run_id, timeline, folder, {name: str(future.state.name) for name, future in joins.items()})
    if reason := first_failure(timeline, made, joins):
        return Failed(message=reason)
    result = publish_result.with_options(refresh_cache=True)(
        record_key(run_id, "result"), run_id, [future.result() for future in joins.values()]
    )
    show_result(result)
    return Completed(message=f"Finished: {result.output.path}", data=result)


def follow(run_id: str, joins: Futures) -> None:
    """Move a bar in the UI until every join is complete, or one has failed."""
    bar, moved = start_progress(run_id, len(joins)), time.monotonic()
    for done, future in enumerate(joins.values()):
        future.wait(BAR_SECONDS)
        if time.monotonic() - moved >= BAR_SECONDS:
            show_progress(bar, done / len(joins))
            moved = time.monotonic()
        future.wait()
        if not future.state.is_completed():
            return
    show_progress(bar, 1.0)


def recall_request(run_id: str, asked: RequestRecord) -> RequestRecord:
    """What this run_id was first used for: ``asked`` itself where it is new, or was never finished by this recipe."""
    key = record_key(run_id, "request")
    stored = read_record(key, RequestRecord)
    if stored and stored.recipe != asked.recipe and not stored.difference(asked) and not finished_result(run_id):
        get_run_logger().warning("run %s was begun by another recipe (%s): it starts over", run_id, stored.recipe)
        stored = None
    first = record_request.with_options(refresh_cache=stored is None)(key, asked)
    require_record(key)
    return first


def finished_result(run_id: str) -> JoinResult | None:
    """The stored result, if its videos are still what they were."""
    result = read_record(record_key(run_id, "result"), JoinResult)
    return result if result and all(joined.is_intact(access_to(joined.path)) for joined in result.joins) else None


def already_in_progress(run_id: str, folder: RunFolder, timeline: Timeline) -> State[Any]:
    """The state in which a run ends where another one is at the same work."""
    holder = next(iter(other_live_runs(run_id)), None)
    where = f"by flow run {holder.name!r} ({holder.id})" if holder else "in another process"
    done = sum(folder.joined_output(join.name).exists() for join in timeline.joins)
    message = f"run {run_id} is in progress {where}: {done} of {len(timeline.joins)} joins are complete"
    return Completed(name="AlreadyInProgress", message=message)


def find_stale(timeline: Timeline, keys: dict[str, str], folder: RunFolder) -> set[str]:
    """Steps that must be done although a record may say that they are: its output is missing, changed or elsewhere.

    Joins from the first one whose output is not intact, and what those are made of.
    """
    records = {step: read_record(key, StepRecord) for step, key in keys.items()}
    access = access_to(folder.url)
    intact = {step: record is not None and record.is_intact_in(folder, access) for step, record in records.items()}
    names = [join.name for join in timeline.joins]
    first = next((k for k, name in enumerate(names) if not intact[name]), len(names))
    needed = {unit.step for join in timeline.joins[first:] for unit in join.encoded_units}
    return set(names[first:]) | {step for step in needed if not intact[step]}


def submit_segments(timeline: Timeline, submit: Submit, folder: RunFolder) -> Futures:
    """Every piece of a clip that is encoded: they depend on no join, and may all run at once."""
    return {
        segment.name: submit(prepare_clip, segment.name, timeline=quote(timeline), segment=segment, folder=folder)
        for join in timeline.joins
        for segment in join.encoded_segments
    }


def submit_seams(
    request: JoinRequest, timeline: Timeline, submit: Submit, folder: RunFolder, waiters: ThreadPoolTaskRunner[Any]
) -> Futures:
    """Every transition, here or on the pool: they depend on no join either."""
    futures: Futures = {}
    for name, transition in (item for join in timeline.joins for item in transitions_of(join).items()):
        seam = {"timeline": quote(timeline), "transition_index": transition.join, "folder": folder}
        if request.gpu_deployment:
            pool = {"deployment": request.gpu_deployment, "run_id": request.run_id}
            futures[name] = submit(generate_on_pool, name, runner=waiters, **seam, **pool)
        else:
            futures[name] = submit(generate_transition, name, **seam)
    return futures


def submit_joins(timeline: Timeline, submit: Submit, made: Futures, folder: RunFolder) -> Futures:
    """The chain: join_k waits for join_{k-1}, for transition k and for the next clip; a stitch for all at once."""
    futures: Futures = {}
    predecessor = None
    for index, join in enumerate(timeline.joins):
        predecessor = futures[join.name] = submit(
            join_clips_child,
            join.name,
            timeline=quote(timeline),
            folder=folder,
            join_index=index,
            is_first_join=index == 0,
            is_last_join=join is timeline.joins[-1],
            next_clip=timeline.clips[join.last_clip].label,
            # In a dict: of a future that is a parameter itself and is running, Prefect's UI makes a parent.
            upstream={
                "predecessor": predecessor,
                "transitions": [made[name] for name in transitions_of(join)],
                "segments": [made[segment.name] for segment in join.encoded_segments],
            },
        )
    return futures


def transitions_of(join: Join) -> dict[str, Transition]:
    """The transitions that come in with a join, by the name of their step."""
    return {f"join_{transition.join}_transition": transition for transition in join.transitions}


def submit_step(
    keys: dict[str, str],
    stale: set[str],
    step: Task[..., Any],
    name: str,
    runner: ThreadPoolTaskRunner[Any] | None = None,
    **parameters: Any,
) -> PrefectFuture[Any]:
    """Submit a step under its name and key; the record of a stale one is not believed. runner: else the flow's own."""
    # Both names: that of the run is not rendered for a step that never gets to start.
    chosen = step.with_options(name=name, task_run_name=name, refresh_cache=name in stale)
    future: PrefectFuture[Any]
    if runner is None:
        future = chosen.submit(keys[name], **parameters)
    else:
        future = runner.submit(chosen, {"key": keys[name], **parameters})
    return future


def first_failure(timeline: Timeline, made: Futures, joins: Futures) -> str | None:
    """The first join of the chain that failed, and why; None where all are complete."""
    for index, join in enumerate(timeline.joins):
        for name, future in inputs_of(join, made, joins).items():
            if not future.state.is_completed():
                done = f"{index} of {len(timeline.joins)} joins are complete"
                return f"{join.name} failed: {name}: {reason_of(future)}; {done}, the same run_id goes on there"
    return None


def inputs_of(join: Join, made: Futures, joins: Futures) -> Futures:
    """The join's own futures, its inputs before itself."""
    names = [segment.name for segment in join.encoded_segments] + list(transitions_of(join))
    return {**{name: made[name] for name in names}, join.name: joins[join.name]}


def reason_of(future: PrefectFuture[Any]) -> str:
    error = future.state.result(raise_on_failure=False)
    return f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(future.state.message)


if __name__ == "__main__":
    from flows.command_line import app

    app()
