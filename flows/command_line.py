"""The command line of ``join-clips``: the flow's parameters as options, one process, no server needed."""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.logging.configuration import setup_logging
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from splice.errors import MediaError, RequestError
from splice.layout import RunFolder
from splice.records import JoinResult
from splice.request import JoinRequest, parse_request
from splice.storage import redacted
from splice.survey import fetch_file, find_specs, local_files, locate_files, plan_request
from splice.types import SourceFile, Timeline
from tasks.access import access_for
from tasks.progress import display, interrupted

from flows.join_clips import join_clips

EXIT_FAILED, EXIT_BAD_REQUEST, EXIT_IN_PROGRESS, EXIT_INTERRUPTED = 1, 2, 3, 130

# File names are no markup.
console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
app: typer.Typer = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _option(field: str, *names: str) -> Any:
    """An option for a parameter of the request, which knows the default."""
    default = JoinRequest.model_fields[field].default
    shown = "" if default in (None, "", {}) else f" Default: {default}."
    return typer.Option(*names, help=f"{_HELP[field]}{shown}", show_default=False)


_HELP = {
    "context_frame_count": "Frames of each side that the model sees.",
    "gap_frame_count": "Frames generated at each seam.",
    "replace_mode": "Generated frames replace boundary frames instead of being inserted.",
    "blend_frames": "Crossfade width on each edge of the generated span.",
    "prompt": "What a diffusion model is told to make.",
    "negative_prompt": "What it is told to avoid.",
    "model": "The transition model; flow_morph and crossfade run on any CPU.",
    "seed": "Seed of the models; left out: derived from the run and the join.",
    "num_inference_steps": "Overrides the model preset.",
    "guidance_scale": "Overrides the model preset.",
    "additional_loras": "Overrides the model preset: NAME=WEIGHT, may be repeated.",
    "generation_resolution": "What a diffusion model works at, WxH; left out: its own.",
    "time_stride": "A diffusion model makes every n-th frame, the rest is interpolated.",
    "vid2vid_strength": "0..1; a diffusion model starts from the frames being replaced, and changes that much.",
    "enhance_prompt": "A vision-language model writes each join's prompt.",
    "max_seam_score": "Make a seam that scores worse again, with another seed.",
    "quality_retries": "How often, at most; the best try is kept.",
    "gpu_deployment": "Where seams are generated, for example generate-transition/gpu; left out: in this process.",
    "max_seams_in_flight": "Seams on a pool at once.",
    "aspect_ratio": "W:H; standardises by centre crop.",
    "resolution": "WxH of the result; left out: the first clip's.",
    "fps": "Frame rate of the result, 25 or 29.97 or 30000/1001; left out: the first clip's.",
    "loop": "A last join leads from the last clip back to the first.",
    "audio": "What the sound does across a seam: 'bridge' it, 'silence', or 'drop' all sound.",
    "soundtrack": "Music laid under the result, repeated or cut to its length.",
    "soundtrack_gain_db": "Its gain in dB.",
    "audio_codec": "Codec of the result's sound: aac, flac or opus.",
    "strategy": "'sequential' writes every join, 'parallel' stitches everything at once.",
    "output_base_dir": "The result goes to join_clips_run_{run_id} in this folder, or s3://bucket/prefix.",
    "run_id": "Identity of the run: the same id is the same work, never done twice. Left out: a new one.",
    "per_join_settings": "JSON file with a list of settings; entry k overrides settings of join k.",
}


_CLIPS = "The videos to join, in order, at least 2: paths, s3:// or http(s)://."


@app.command()
def main(
    clips: Annotated[list[str], typer.Argument(help=_CLIPS, show_default=False)],
    context_frame_count: Annotated[int | None, _option("context_frame_count", "--context-frames")] = None,
    gap_frame_count: Annotated[int | None, _option("gap_frame_count", "--gap-frames")] = None,
    replace_mode: Annotated[bool | None, _option("replace_mode", "--replace-mode/--insert-mode")] = None,
    blend_frames: Annotated[int | None, _option("blend_frames", "--blend-frames")] = None,
    prompt: Annotated[str | None, _option("prompt", "--prompt")] = None,
    negative_prompt: Annotated[str | None, _option("negative_prompt", "--negative-prompt")] = None,
    model: Annotated[str | None, _option("model", "--model")] = None,
    seed: Annotated[int | None, _option("seed", "--seed")] = None,
    num_inference_steps: Annotated[int | None, _option("num_inference_steps", "--num-inference-steps")] = None,
    guidance_scale: Annotated[float | None, _option("guidance_scale", "--guidance-scale")] = None,
    additional_loras: Annotated[list[str] | None, _option("additional_loras", "--lora")] = None,
    generation_resolution: Annotated[str | None, _option("generation_resolution", "--generation-resolution")] = None,
    time_stride: Annotated[int | None, _option("time_stride", "--time-stride")] = None,
    vid2vid_strength: Annotated[float | None, _option("vid2vid_strength", "--vid2vid-strength")] = None,
    enhance_prompt: Annotated[bool | None, _option("enhance_prompt", "--enhance-prompt")] = None,
    max_seam_score: Annotated[float | None, _option("max_seam_score", "--max-seam-score")] = None,
    quality_retries: Annotated[int | None, _option("quality_retries", "--quality-retries")] = None,
    gpu_deployment: Annotated[str | None, _option("gpu_deployment", "--gpu-deployment")] = None,
    max_seams_in_flight: Annotated[int | None, _option("max_seams_in_flight", "--max-seams-in-flight")] = None,
    aspect_ratio: Annotated[str | None, _option("aspect_ratio", "--aspect-ratio")] = None,
    resolution: Annotated[str | None, _option("resolution", "--resolution")] = None,
    fps: Annotated[str | None, _option("fps", "--fps")] = None,
    loop: Annotated[bool | None, _option("loop", "--loop")] = None,
    audio: Annotated[str | None, _option("audio", "--audio")] = None,
    soundtrack: Annotated[str | None, _option("soundtrack", "--soundtrack")] = None,
    soundtrack_gain_db: Annotated[float | None, _option("soundtrack_gain_db", "--soundtrack-gain-db")] = None,
    audio_codec: Annotated[str | None, _option("audio_codec", "--audio-codec")] = None,
    strategy: Annotated[str | None, _option("strategy", "--strategy")] = None,
    output_base_dir: Annotated[str | None, _option("output_base_dir", "--output-base-dir")] = None,
    run_id: Annotated[str | None, _option("run_id", "--run-id")] = None,
    per_join_settings: Annotated[str | None, _option("per_join_settings", "--per-join-settings")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of its path.")] = False,
) -> None:
    """Join video clips into one, with a generated transition at every seam.

    Prints the path of the video. Exit status: 0 done, 1 failed, 2 bad request, 3 the run is in progress elsewhere.
    """
    options = dict(locals())
    try:
        parameters = _parameters(options)
        request = parse_request(parameters)
        find_specs(request)
        RunFolder.of(request.output_base_dir, request.run_id).require_place()
        _require_server()
        timeline = plan_request(request, _find_files(request))
    except RequestError as error:
        _stop(str(error), EXIT_BAD_REQUEST)
    except MediaError as error:
        _stop(str(error), EXIT_FAILED)
    _finish(_run(parameters, timeline), request, as_json)


def _parameters(options: dict[str, Any]) -> dict[str, Any]:
    """Options as typed -> the flow's parameters; what was not given is left to the flow."""
    given = {name: value for name, value in options.items() if name in JoinRequest.model_fields and value is not None}
    for name in ("resolution", "generation_resolution"):
        if name in given:
            given[name] = _size(given[name])
    if "fps" in given:
        given["fps"] = _rate(given["fps"])
    if "per_join_settings" in given:
        given["per_join_settings"] = _read_settings(given["per_join_settings"])
    if "additional_loras" in given:
        given["additional_loras"] = dict(_lora(lora) for lora in given["additional_loras"])
    new_run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    return {"run_id": new_run_id, **given, "clip_list": [{"url": clip} for clip in options["clips"]]}


def _size(text: str) -> list[int]:
    width, by, height = text.partition("x")
    if not (by and width.isdecimal() and height.isdecimal()):
        raise RequestError(f"got {text!r} as a size; needed: width and height in pixels, for example 1280x720")
    return [int(width), int(height)]


def _lora(text: str) -> tuple[str, str]:
    name, equals, weight = text.rpartition("=")
    if not equals:
        raise RequestError(f"additional_loras: got {text!r}; needed: NAME=WEIGHT, for example style.safetensors=0.8")
    return name, weight


def _rate(text: str) -> float:
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise RequestError(f"fps: got {text!r}; needed: frames per second, for example 25 or 30000/1001") from error


def _read_settings(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text())
    except OSError as error:
        raise RequestError(f"per_join_settings: {path}: {error.strerror}; give a JSON file") from error
    except ValueError as error:
        raise RequestError(f"per_join_settings: {path} is no JSON: {error}; needed: a list of settings") from error


def _find_files(request: JoinRequest) -> dict[str, SourceFile]:
    access = access_for(request)
    files = local_files(request)
    for url, located in locate_files(request, access).items():
        console.print(f"fetching {redacted(url)} ({located.size_bytes / 1e6:.1f} MB)")
        files[url] = fetch_file(url, located, access)
    return files


def _require_server() -> None:
    """Raises RequestError where PREFECT_API_URL names a server that does not answer."""
    url = PREFECT_API_URL.value()
    if not url:
        return
    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    if error:
        raise RequestError(
            f"PREFECT_API_URL is {url}, where no Prefect server answers ({error}); start it (make up), or unset "
            f"PREFECT_API_URL to work without one"
        )


def _run(parameters: dict[str, Any], timeline: Timeline) -> State[Any]:
    _keep_prefect_off_the_terminal()

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        interrupted.set()
        if not PREFECT_API_URL.value():
            _leave_with_the_server(parameters["run_id"])
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        # Its temporary server takes its time on a busy machine.
        with _progress_bars(timeline), temporary_settings({PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 120}):
            state: State[Any] = join_clips(**parameters, return_state=True)
    except KeyboardInterrupt:
        _stop(_INTERRUPTED.format(parameters["run_id"]), EXIT_INTERRUPTED)
    return state


_INTERRUPTED = "interrupted; the same command with --run-id {} goes on here"


def _leave_with_the_server(run_id: str) -> NoReturn:
    """At once: Ctrl-C reaches Prefect's temporary server too, and to take leave of a dead one takes minutes.

    What is finished is on record, and the next run deletes what is half written.
    """
    from prefect.server.api.server import SubprocessASGIServer

    console.print(_INTERRUPTED.format(run_id))
    SubprocessASGIServer().stop()
    os._exit(EXIT_INTERRUPTED)


def _keep_prefect_off_the_terminal() -> None:
    """Prefect's log goes to its API, where its UI shows it; the terminal is for what the user asked for."""
    # Its temporary server would speak up about reporting to its maker, about not reaching it, and when it dies.
    os.environ.setdefault("PREFECT_LOGGING_SERVER_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    setup_logging()
    loggers = [logging.getLogger(name) for name in ("", *logging.root.manager.loggerDict)]
    for handler in (handler for logger in loggers for handler in logger.handlers):
        if isinstance(handler, PrefectConsoleHandler):
            handler.addFilter(lambda record: False)


@contextmanager
def _progress_bars(timeline: Timeline) -> Iterator[None]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    if not console.is_terminal:
        yield
        return
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(f"{timeline.frame_count} frames", total=None)
        token = display.set(progress)
        try:
            yield
        finally:
            display.reset(token)


def _finish(state: State[Any], request: JoinRequest, as_json: bool) -> None:
    if state.name == "AlreadyInProgress":
        _stop(str(state.message), EXIT_IN_PROGRESS)
    if not state.is_completed():
        error = state.result(raise_on_failure=False)
        if isinstance(error, RequestError):
            _stop(str(error), EXIT_BAD_REQUEST)
        _stop(f"{state.message} (run_id {request.run_id})", EXIT_FAILED)
    result = state.result()
    assert isinstance(result, JoinResult)
    folder = RunFolder.of(request.output_base_dir, request.run_id)
    for joined in result.joins:
        _say_what_was_done(joined.path, folder, is_last=joined is result.joins[-1])
    print(result.model_dump_json() if as_json else result.output.path)


def _say_what_was_done(video: str, folder: RunFolder, is_last: bool) -> None:
    """What a join did itself, and of the last one what all of its video is made of, from its report."""
    home = folder.local(video).parent
    try:
        report = json.loads((home / "report.json").read_text())
    except OSError:
        # A finished run is believed by its videos; a user may have tidied up beside them.
        return
    took = f"{report['elapsed_seconds']:.1f} s"
    console.print(f"{report['join']}: {_tally(report['this_join'])}; joined in {took}")
    # Reports of earlier versions have no scores.
    scores = [seam.get("score") for seam in report["seams"]]
    said = ", ".join("-" if score is None else f"{score:.1f}" for score in scores)
    console.print(f"  seam score {said}: {folder.location(home / 'report.html')}")
    for seam in report["seams"]:
        limit = seam.get("gate", {}).get("max_seam_score")
        if limit is not None and (seam["score"] or 0) > limit:
            console.print(f"  seam {seam['transition']} is worse than max_seam_score {limit:.1f}: look at it")
    if is_last:
        console.print(f"in all {report['frames']} frames, {report['seconds']:.1f} s: {_tally(report['total'])}")


def _tally(counted: dict[str, Any]) -> str:
    """``60 frames copied (1.2 MB: fits as it is), 5 encoded (0.1 MB: 5 generated)``."""
    copied, encoded = counted["passthrough"], counted["encode"]
    why = ", ".join(f"{frames} {reason}" for reason, frames in encoded["why"].items())
    return (
        f"{copied['frames']} frames copied ({copied['bytes'] / 1e6:.1f} MB), "
        f"{encoded['frames']} encoded ({encoded['bytes'] / 1e6:.1f} MB: {why})"
    )


def _stop(message: str, status: int) -> NoReturn:
    console.print(f"error: {message}" if status in (EXIT_FAILED, EXIT_BAD_REQUEST) else message)
    raise typer.Exit(status)
