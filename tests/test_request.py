"""Requests: what is refused before anything is opened, in which words, and what holds where nothing is said."""

from __future__ import annotations

import inspect
import math
from fractions import Fraction
from typing import Any

import pytest

from flows.join_clips import join_clips
from splice.errors import RequestError, SpliceError
from splice.records import request_record
from splice.request import ClipSource, JoinRequest, PerJoinSettings, derive_seed, parse_request
from splice.storage import RemoteIdentity
from splice.types import ClipIdentity

CLIPS = [{"url": "a.mp4"}, {"url": "b.mp4"}, {"url": "c.mp4"}]


def request(**parameters: Any) -> JoinRequest:
    return parse_request({"clip_list": CLIPS, "run_id": "test", **parameters})


def refusal(**parameters: Any) -> str:
    with pytest.raises(RequestError) as caught:
        request(**parameters)
    assert isinstance(caught.value, SpliceError) and isinstance(caught.value, ValueError)
    return str(caught.value)


@pytest.mark.parametrize("version", ["", "etag:1"])
def test_what_a_web_server_gives_no_version_is_only_known_by_fetching_it(version: str) -> None:
    urls = ["https://host/get?id=1", "https://host/get?id=2"]
    asked = request(clip_list=[{"url": url} for url in urls])
    known = {url: ClipIdentity(0, 0, f"{n}" * 64, version) for n, url in enumerate(urls)}
    recalled = request_record(asked, known, "1").recalled(asked, dict.fromkeys(urls, RemoteIdentity(0, version)))
    assert (recalled is not None) == bool(version)


# ---------------------------------------------------------------------------------------------------------
# Refused
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"clip_list": [{"url": "a.mp4"}]}, ["clip_list: ", "not 1", "needed: at least 2 clips"]),
        ({"clip_list": []}, ["clip_list: ", "not 0", "needed: at least 2 clips"]),
        ({"clip_list": [{"url": ""}, {"url": "b"}]}, ["clip_list.0.url: ", "at least 1 character", "got ''"]),
        ({"clip_list": [{"name": "x"}, {"url": "b"}]}, ["clip_list.0.url: required, but not given"]),
        ({"gap_frame_count": 0}, ["gap_frame_count: ", "greater than or equal to 1", "got 0"]),
        ({"gap_frame_count": 2.5}, ["gap_frame_count: ", "valid integer", "got 2.5"]),
        ({"context_frame_count": 0}, ["context_frame_count: ", "greater than or equal to 1", "got 0"]),
        ({"blend_frames": -1}, ["blend_frames: ", "greater than or equal to 0", "got -1"]),
        ({"num_inference_steps": 0}, ["num_inference_steps: ", "greater than or equal to 1", "got 0"]),
        ({"guidance_scale": math.nan}, ["guidance_scale: ", "finite number", "got nan"]),
        ({"guidance_scale": math.inf}, ["guidance_scale: ", "finite number", "got inf"]),
        ({"additional_loras": {"style": "much"}}, ["additional_loras.style: ", "valid number", "got 'much'"]),
        ({"model": ""}, ["model: ", "at least 1 character", "got ''"]),
        ({"seed": "dice"}, ["seed: ", "valid integer", "got 'dice'"]),
        ({"max_seams_in_flight": 0}, ["max_seams_in_flight: ", "greater than or equal to 1", "got 0"]),
        ({"aspect_ratio": "16x9"}, ["aspect_ratio: ", "got '16x9'", "needed: W:H, for example 16:9"]),
        ({"aspect_ratio": "16:0"}, ["aspect_ratio: ", "got '16:0'", "needed: W:H"]),
        ({"aspect_ratio": "16:9\n"}, ["aspect_ratio: ", r"got '16:9\n'", "needed: W:H"]),
        ({"resolution": [1280]}, ["resolution: ", "got [1280]", "needed: [width, height] in pixels"]),
        ({"resolution": [1280, 720, 1]}, ["resolution: ", "got [1280, 720, 1]", "needed: [width, height]"]),
        ({"resolution": "1280x720"}, ["resolution: ", "got '1280x720'", "needed: [width, height]"]),
        ({"resolution": [1, 720]}, ["resolution.0: ", "greater than or equal to 2", "got 1"]),
        ({"fps": 0}, ["fps: ", "greater than or equal to 0.001", "got 0"]),
        ({"fps": -25}, ["fps: ", "greater than or equal to 0.001", "got -25"]),
        ({"fps": 1e-9}, ["fps: ", "greater than or equal to 0.001", "got 1e-09"]),
        ({"fps": 1001}, ["fps: ", "less than or equal to 1000", "got 1001"]),
        ({"fps": math.nan}, ["fps: ", "finite number", "got nan"]),
        ({"fps": "30000/1001"}, ["fps: ", "got '30000/1001'", "needed: a number of frames per second"]),
        ({"soundtrack_gain_db": 1e9}, ["soundtrack_gain_db: ", "less than or equal to 100", "got 1000000000.0"]),
        ({"audio": "loud"}, ["audio: ", "'bridge', 'silence' or 'drop'", "got 'loud'"]),
        ({"audio_codec": "mp3"}, ["audio_codec: ", "'aac', 'flac' or 'opus'", "got 'mp3'"]),
        ({"strategy": "random"}, ["strategy: ", "'sequential' or 'parallel'", "got 'random'"]),
        ({"output_base_dir": ""}, ["output_base_dir: ", "at least 1 character", "got ''"]),
        ({"vid2vid_strength": 1.5}, ["vid2vid_strength: ", "less than or equal to 1", "got 1.5"]),
        ({"per_join_settings": [{}, {"gap_frame_count": 0}]}, ["per_join_settings.1.gap_frame_count: ", "got 0"]),
    ],
)
def test_a_bad_value_is_refused_with_where_what_got_and_needed(parameters: dict[str, Any], words: list[str]) -> None:
    message = refusal(**parameters)
    assert message.startswith(words[0])
    for word in words[1:]:
        assert word in message


@pytest.mark.parametrize("run_id", [".", ".."])
def test_a_run_id_that_would_lead_out_of_its_folder_is_refused(run_id: str) -> None:
    assert "run_id: got" in refusal(run_id=run_id)


@pytest.mark.parametrize("run_id", ["", "a/b", "a" * 129, "a\n", "\na", "a b", "a\\b", "ä"])
def test_a_run_id_that_is_no_plain_name_is_refused(run_id: str) -> None:
    message = refusal(run_id=run_id)
    assert message.startswith("run_id: ") and "needed: 1 to 128 of the characters A-Z a-z 0-9 . _ -" in message


@pytest.mark.parametrize("run_id", ["a", "a" * 128, "2024-05-01_final.v2"])
def test_a_plain_run_id_is_taken_as_it_is(run_id: str) -> None:
    assert request(run_id=run_id).run_id == run_id


def test_what_is_required_is_asked_for() -> None:
    with pytest.raises(RequestError) as caught:
        parse_request({})
    assert str(caught.value) == "clip_list: required, but not given; run_id: required, but not given"


def test_all_problems_are_told_at_once() -> None:
    message = refusal(gap_frame_count=0, seed="dice", foo=1)
    assert [part.split(":")[0] for part in message.split("; ") if ": " in part] == ["gap_frame_count", "seed", "foo"]


@pytest.mark.parametrize(
    ("parameters", "where", "owner"),
    [
        ({"gap_frames": 5}, "gap_frames", JoinRequest),
        ({"clip_list": [{"url": "a"}, {"url": "b", "path": "c"}]}, "clip_list.1.path", ClipSource),
        ({"per_join_settings": [{}, {"blend": 2}]}, "per_join_settings.1.blend", PerJoinSettings),
        ({"per_join_settings": [{"fps": 25}]}, "per_join_settings.0.fps", PerJoinSettings),
    ],
)
def test_a_mistyped_key_is_refused_with_those_that_are_known(
    parameters: dict[str, Any], where: str, owner: type[Any]
) -> None:
    assert refusal(**parameters) == f"{where}: unknown key; known are {', '.join(owner.model_fields)}"


@pytest.mark.parametrize(
    ("parameters", "join", "blend", "context"),
    [
        ({"blend_frames": 9}, 0, 9, 8),
        ({"context_frame_count": 2}, 0, 3, 2),
        ({"per_join_settings": [{}, {"blend_frames": 12}]}, 1, 12, 8),
        ({"per_join_settings": [{}, {"context_frame_count": 1}]}, 1, 3, 1),
        ({"per_join_settings": [{"context_frame_count": 5, "blend_frames": 6}]}, 0, 6, 5),
    ],
)
def test_a_blend_wider_than_what_the_model_sees_is_refused(
    parameters: dict[str, Any], join: int, blend: int, context: int
) -> None:
    assert refusal(**parameters) == (
        f"join {join}: blend_frames is {blend}, but the model sees only {context} context frames of each side; "
        f"set blend_frames to at most {context} or raise context_frame_count"
    )


def test_an_override_may_make_a_wide_blend_possible() -> None:
    wide = [{"context_frame_count": 12}, {"context_frame_count": 9}]
    assert request(blend_frames=9, per_join_settings=wide).settings(1).blend_frames == 9


def test_more_overrides_than_joins_are_refused() -> None:
    assert refusal(per_join_settings=[{}] * 4) == (
        "per_join_settings: got 4 entries, but 3 clips make 2 joins; leave out the last 2"
    )
    assert refusal(per_join_settings=[{}] * 4, loop=True) == (
        "per_join_settings: got 4 entries, but 3 clips make 3 joins; leave out the last 1"
    )
    assert request(per_join_settings=[{}] * 3, loop=True).join_count == 3


def test_retries_without_a_limit_are_refused() -> None:
    assert refusal(quality_retries=2).endswith("set both")
    assert refusal(max_seam_score=-1.0).startswith("max_seam_score: ")
    assert request(quality_retries=2, max_seam_score=1.5).settings(0).quality_retries == 2


@pytest.mark.parametrize("url", ["gopher://host/b.mp4", "s3://b/x", "https://me:hush@host/b.mp4"])
def test_a_url_that_nothing_can_be_fetched_from_is_refused(url: str) -> None:
    message = refusal(clip_list=[{"url": "a.mp4"}, {"url": url, "name": "second"}])
    assert message.startswith("clip 1 (second): ")


@pytest.mark.parametrize("scheme", ["s3", "http", "https"])
def test_a_clip_may_be_elsewhere(scheme: str) -> None:
    clips = [{"url": "a.mp4"}, {"url": f"{scheme}://host/folder/b.mp4"}]
    request = parse_request({"clip_list": clips, "run_id": "x"})
    assert [source.is_remote for source in request.clip_list] == [False, True]


@pytest.mark.parametrize(
    "parameters",
    [
        {"clip_list": [{"url": "https://me:hush@host/b.mp4?signature=hush"}, {"url": "b"}]},
        {"clip_list": [{"url": "https://me:hush@host?signature=hush"}, {"url": "b"}]},
        {"clip_list": [{"url": "https://me:hush@host/b.mp4?signature=hush"}]},
        {"soundtrack": "https://me:hush@host/b.mp3?signature=hush"},
        {"output_base_dir": "s3://me:hush@bucket/folder"},
    ],
)
def test_no_message_tells_a_secret_of_a_url(parameters: dict[str, Any]) -> None:
    assert "hush" not in refusal(**parameters)


# ---------------------------------------------------------------------------------------------------------
# Taken
# ---------------------------------------------------------------------------------------------------------

DEFAULTS: dict[str, Any] = {
    "context_frame_count": 8,
    "gap_frame_count": 53,
    "replace_mode": False,
    "blend_frames": 3,
    "prompt": "smooth transition",
    "negative_prompt": "",
    "model": "lightning_baseline_2_2_2",
    "seed": None,
    "num_inference_steps": None,
    "guidance_scale": None,
    "additional_loras": {},
    "generation_resolution": None,
    "time_stride": 1,
    "vid2vid_strength": None,
    "enhance_prompt": False,
    "max_seam_score": None,
    "quality_retries": 0,
    "gpu_deployment": None,
    "max_seams_in_flight": 32,
    "aspect_ratio": None,
    "resolution": None,
    "fps": None,
    "loop": False,
    "audio": "bridge",
    "soundtrack": None,
    "soundtrack_gain_db": 0,
    "audio_codec": "aac",
    "strategy": "sequential",
    "output_base_dir": "./outputs/",
    "per_join_settings": [],
}
"""The documented defaults."""


def test_defaults_are_the_table_s() -> None:
    made = request().model_dump()
    assert {name: made[name] for name in DEFAULTS} == DEFAULTS
    assert set(made) == {"clip_list", "run_id", *DEFAULTS}


def test_the_flow_takes_the_request_s_parameters_with_the_same_defaults() -> None:
    parameters = inspect.signature(join_clips.fn).parameters
    assert list(parameters) == list(JoinRequest.model_fields)
    for name, field in JoinRequest.model_fields.items():
        default = inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
        assert parameters[name].default == default, name


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (None, None),
        (25, Fraction(25)),
        (12.5, Fraction(25, 2)),
        (29.97, Fraction(30000, 1001)),
        (30000 / 1001, Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (23.98, Fraction(24000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (24, Fraction(24)),
        (30, Fraction(30)),
        (120000 / 1001, Fraction(120000, 1001)),
        (7, Fraction(7)),
        (0.001, Fraction(1, 1000)),
        (1000, Fraction(1000)),
    ],
)
def test_the_rate_is_exact(fps: float | None, rate: Fraction | None) -> None:
    assert request(fps=fps).rate == rate


@pytest.mark.parametrize(
    ("url", "path", "label"),
    [
        ("a.mp4", "a.mp4", "a.mp4"),
        ("/clips/a b%20c.mp4", "/clips/a b%20c.mp4", "a b%20c.mp4"),
        ("file:///clips/a.mp4", "/clips/a.mp4", "a.mp4"),
        ("file:///clips/a%20b%23%C3%A4.mp4", "/clips/a b#ä.mp4", "a b#ä.mp4"),
        ("file:///clips/100%25.mp4", "/clips/100%.mp4", "100%.mp4"),
        ("file://localhost/clips/a.mp4", "/clips/a.mp4", "a.mp4"),
        ("FILE:///clips/a.mp4", "/clips/a.mp4", "a.mp4"),
        ("file:///clips/what?.mp4", "/clips/what?.mp4", "what?.mp4"),
    ],
)
def test_a_local_clip_s_url_is_its_path(url: str, path: str, label: str) -> None:
    source = request(clip_list=[{"url": url}, {"url": "b.mp4"}]).clip_list[0]
    assert (source.path, source.label) == (path, label)


def test_a_clip_is_called_by_its_name_where_it_has_one() -> None:
    assert ClipSource(url="/clips/a.mp4", name="opening").label == "opening"


def test_a_request_s_settings_hold_at_every_join_but_for_its_overrides() -> None:
    override: dict[str, Any] = {
        "prompt": "",
        "negative_prompt": "text",
        "seed": 0,
        "model": "crossfade",
        "context_frame_count": 5,
        "gap_frame_count": 7,
        "blend_frames": 0,
        "replace_mode": False,
        "num_inference_steps": 4,
        "guidance_scale": 0.0,
        "additional_loras": {},
    }
    assert set(override) == set(PerJoinSettings.model_fields)
    common = {"replace_mode": True, "prompt": "fog", "seed": 7, "additional_loras": {"b": 1.0, "a": 0.5}}
    made = request(**common, per_join_settings=[override])
    first, second = made.settings(0), made.settings(1)
    # Each override counts, also where it is empty, zero or false.
    assert (first.model, first.context_frame_count, first.gap_frame_count) == ("crossfade", 5, 7)
    assert (first.blend_frames, first.replace_mode) == (0, False)
    assert (first.model_settings.prompt, first.model_settings.negative_prompt) == ("", "text")
    assert (first.model_settings.seed, first.model_settings.additional_loras) == (0, ())
    assert (first.model_settings.num_inference_steps, first.model_settings.guidance_scale) == (4, 0.0)
    assert (second.model, second.context_frame_count, second.gap_frame_count) == (made.model, 8, 53)
    assert (second.blend_frames, second.replace_mode) == (3, True)
    assert (second.model_settings.prompt, second.model_settings.negative_prompt) == ("fog", "")
    assert (second.model_settings.seed, second.model_settings.additional_loras) == (7, (("a", 0.5), ("b", 1.0)))
    assert (second.model_settings.num_inference_steps, second.model_settings.guidance_scale) == (None, None)


def test_derived_seeds_are_stable_and_differ_by_join_and_run() -> None:
    seeds = [derive_seed(run_id, join) for run_id in ("test", "tesu", "test1", "") for join in range(50)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert derive_seed("test", 0) == 1_479_517_767  # recorded runs must stay reproducible
    assert [request().settings(join).model_settings.seed for join in range(2)] == seeds[:2]
    assert request(seed=7, per_join_settings=[{"seed": 8}]).settings(1).model_settings.seed == 7
