"""Seams on their way between machines: the frames that come out are those of a run in one process, to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from splice.errors import GenerationError, MediaError
from splice.guide import read_guide
from splice.handles import lay_window, read_handles, render_handles, write_handles
from splice.media import LosslessVideo, open_lossless, probe_clip, write_lossless
from splice.models import find_model, registry
from splice.models.loaded import loaded_model
from splice.models.protocol import Frame, Guide, ModelSettings, ModelSpec, Rendering, TransitionModel, WindowRule
from splice.models.weights import digest_loras
from splice.plan import plan_timeline
from splice.request import parse_request
from splice.transition import generate_transition
from splice.types import Timeline, Transition
from tests.footage import make_clip


class Noise:
    """Renders its context too: noise out of the seed, laid over what it was shown, in windows of 4n + 1 frames."""

    spec = ModelSpec("noise", "1", renders_context=True, window=WindowRule(4, 81))

    def render(self, guide: Guide, settings: ModelSettings) -> Rendering:
        shown = int(guide.left.sum() + guide.right.sum())
        return Rendering(self._frames(guide, settings), {"shown": float(shown), "prompt": settings.prompt})

    def _frames(self, guide: Guide, settings: ModelSettings) -> Iterator[Frame]:
        random = np.random.default_rng(settings.seed)
        for index in range(guide.window_frames):
            noise = random.integers(0, np.iinfo(guide.left.dtype).max + 1, guide.left.shape[1:])
            near = guide.left[-1] if index < guide.window_frames // 2 else guide.right[0]
            yield cv2.addWeighted(near, 0.5, noise.astype(near.dtype), 0.5, 0.0)


class Styled(Noise):
    """Takes LoRA weights."""

    spec = replace(Noise.spec, overrides=frozenset({"additional_loras"}))


class OfTensors(Noise):
    """Works on torch tensors, as the diffusion models do."""

    spec = replace(Noise.spec, name="of_tensors", takes_tensors=True)


class Planned(Noise):
    """A model as the machine that plans the run knows it."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec


class Broken:
    """Promises the gap and stops after two frames."""

    spec = ModelSpec("broken", "1", renders_context=False)

    def render(self, guide: Guide, settings: ModelSettings) -> Rendering:
        return Rendering(iter([guide.left[-1], guide.right[0]]))


def plan(clips: list[Path], model: TransitionModel, **parameters: Any) -> Timeline:
    sources = [{"url": str(path)} for path in clips]
    given = {"model": model.spec.name, "prompt": 'naïve "quotes"\n', "gap_frame_count": 6, **parameters}
    request = parse_request({"clip_list": sources, "run_id": "test", **given})
    probed = [probe_clip(index, path.name, str(path)) for index, path in enumerate(clips)]
    return plan_timeline(request, probed, {model.spec.name: model.spec})


def through_files(timeline: Timeline, transition: Transition, model: TransitionModel, folder: Path) -> Any:
    """The transition by way of handles and window, as two machines would make it."""
    write_handles(timeline, transition, folder / "handles.mkv")
    render_handles(folder / "handles.mkv", folder / "window.mkv", model)
    return lay_window(timeline, transition, folder / "window.mkv")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Path]]:
    """Of 8 and of 10 bits: a pair, the first clip of which is too short for a model's window."""
    folder = tmp_path_factory.mktemp("clips")
    return {
        bits: [
            make_clip(folder / f"{bits}-{index}.mp4", clip_id=index, frame_count=frames, pixel_format=pixel_format)
            for index, frames in enumerate((8, 14))
        ]
        for bits, pixel_format in ((8, "yuv420p"), (10, "yuv420p10le"))
    }


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("replace_mode", [False, True])
@pytest.mark.parametrize(
    "model", [find_model("crossfade"), find_model("flow_morph"), Noise(), OfTensors()], ids=lambda m: m.spec.name
)
def test_the_frames_are_those_of_one_process(
    clips: dict[int, list[Path]], tmp_path: Path, bits: int, replace_mode: bool, model: TransitionModel
) -> None:
    timeline = plan(clips[bits], model, replace_mode=replace_mode, context_frame_count=9, blend_frames=2)
    (transition,) = timeline.transitions
    if model.spec.renders_context:
        assert transition.left.padding or transition.right.padding
    inline = generate_transition(timeline, transition, model)
    laid = through_files(timeline, transition, model, tmp_path)
    expected, frames = ([frame.to_ndarray() for frame in each.frames] for each in (inline, laid))
    assert len(frames) == transition.frame_count
    for one, other in zip(expected, frames, strict=True):
        np.testing.assert_array_equal(one, other)
    assert laid.notes == inline.notes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["handles.mkv", "window.mkv"]


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("bits", [8, 10])
def test_handles_hold_all_that_a_model_is_given(
    clips: dict[int, list[Path]], tmp_path: Path, bits: int, as_tensor: bool
) -> None:
    parameters = {"seed": 2**40 + 1, "per_join_settings": [{"negative_prompt": "ünruhig"}]}
    timeline = plan(clips[bits], Noise(), context_frame_count=9, **parameters)
    (transition,) = timeline.transitions
    write_handles(timeline, transition, tmp_path / "handles.mkv")
    guide, handles = read_handles(tmp_path / "handles.mkv", as_tensor=as_tensor)
    shown = read_guide(timeline, transition)
    assert guide.left.dtype == shown.left.dtype == (np.uint8 if bits == 8 else np.uint16)
    np.testing.assert_array_equal(guide.left, shown.left)
    np.testing.assert_array_equal(guide.right, shown.right)
    assert (guide.gap_frames, guide.rate) == (shown.gap_frames, shown.rate)
    assert handles.settings == transition.settings.model_settings
    assert (handles.model, handles.revision) == ("noise", "1")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(2, 2), (33, 17), (108, 192)])
def test_any_picture_is_read_back_to_the_bit(tmp_path: Path, dtype: Any, size: tuple[int, int]) -> None:
    random = np.random.default_rng(3)
    pictures = random.integers(0, np.iinfo(dtype).max + 1, (5, *size, 3)).astype(dtype)
    path = tmp_path / "noise.mkv"
    write_lossless(pictures, path, Fraction(30000, 1001), "a note")
    video = open_lossless(path)
    assert (video.shape, video.dtype, video.note) == ((*size, 3), np.dtype(dtype), "a note")
    np.testing.assert_array_equal(np.stack(list(video.read(5))), pictures)


@pytest.mark.parametrize("size", [(33, 73), (17, 96), (108, 192), (270, 479)])
def test_decord_reads_the_same_bits_into_a_tensor(tmp_path: Path, size: tuple[int, int]) -> None:
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("decord")
    pictures = np.random.default_rng(3).integers(0, 256, (5, *size, 3)).astype(np.uint8)
    write_lossless(pictures, tmp_path / "noise.mkv", Fraction(30000, 1001), "a note")
    video = open_lossless(tmp_path / "noise.mkv")
    assert video.suits_tensors
    tensor = video.read_tensor(5)
    assert isinstance(tensor, torch.Tensor) and tensor.dtype == torch.uint8
    np.testing.assert_array_equal(tensor.numpy(), pictures)
    with pytest.raises(MediaError, match=r"noise\.mkv: holds 5 frames, needed are 6"):
        video.read_tensor(6)


def test_a_model_of_tensors_gets_them_by_decord_alone(
    clips: dict[int, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("decord")

    def refuse(video: LosslessVideo, count: int) -> Iterator[Frame]:
        raise AssertionError("read by PyAV")

    monkeypatch.setattr(LosslessVideo, "read", refuse)
    for model in (OfTensors(), Noise()):
        timeline = plan(clips[8], model)
        write_handles(timeline, timeline.transitions[0], tmp_path / "handles.mkv")
        if model.spec.takes_tensors:
            assert render_handles(tmp_path / "handles.mkv", tmp_path / "window.mkv", model).frames
        else:
            with pytest.raises(AssertionError, match="read by PyAV"):
                render_handles(tmp_path / "handles.mkv", tmp_path / "window.mkv", model)


@pytest.mark.parametrize(
    ("size", "dtype"), [((36, 96), np.uint16), ((2, 2), np.uint8), ((27, 48), np.uint8), ((40, 72), np.uint8)]
)
def test_pictures_that_decord_would_spoil_are_read_by_pyav(tmp_path: Path, size: tuple[int, int], dtype: Any) -> None:
    shape = (2, *size, 3)
    write_lossless(np.full(shape, np.iinfo(dtype).max // 2, dtype), tmp_path / "odd.mkv", Fraction(30), "a note")
    assert not open_lossless(tmp_path / "odd.mkv").suits_tensors


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def delete(path: Path) -> None:
    path.unlink()


def replace_by_a_clip(path: Path) -> None:
    make_clip(path, clip_id=1, frame_count=4, codec="ffv1")


def replace_by_the_other_kind(path: Path) -> None:
    other = path.with_name("window.mkv" if path.name == "handles.mkv" else "handles.mkv")
    path.write_bytes(other.read_bytes())


DAMAGES = [cut, empty, delete, replace_by_a_clip, replace_by_the_other_kind]


@pytest.mark.parametrize("model", [Noise(), OfTensors()], ids=lambda m: m.spec.name)
@pytest.mark.parametrize("damage", [*DAMAGES, flip_a_bit])
def test_spoilt_handles_are_told(
    clips: dict[int, list[Path]], tmp_path: Path, damage: Any, model: TransitionModel
) -> None:
    timeline = plan(clips[8], model)
    through_files(timeline, timeline.transitions[0], model, tmp_path)
    damage(tmp_path / "handles.mkv")
    with pytest.raises(MediaError, match=r"handles\.mkv.*delete it and run the same command with the same run_id"):
        render_handles(tmp_path / "handles.mkv", tmp_path / "again.mkv", model)
    assert not (tmp_path / "again.mkv").exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_spoilt_window_is_told(clips: dict[int, list[Path]], tmp_path: Path, damage: Any) -> None:
    timeline = plan(clips[8], Noise())
    through_files(timeline, timeline.transitions[0], Noise(), tmp_path)
    damage(tmp_path / "window.mkv")
    with pytest.raises(MediaError, match=r"window\.mkv.*delete it and run the same command with the same run_id"):
        list(lay_window(timeline, timeline.transitions[0], tmp_path / "window.mkv").frames)


@pytest.mark.parametrize("change", [{"gap_frame_count": 10}, {"resolution": [64, 36]}])
def test_a_window_of_another_seam_is_told(clips: dict[int, list[Path]], tmp_path: Path, change: dict[str, Any]) -> None:
    timeline, other = plan(clips[8], Noise()), plan(clips[8], Noise(), **change)
    through_files(timeline, timeline.transitions[0], Noise(), tmp_path)
    with pytest.raises(MediaError, match="seam 0 needs"):
        lay_window(other, other.transitions[0], tmp_path / "window.mkv")


def test_a_model_that_breaks_its_promise_leaves_no_window(clips: dict[int, list[Path]], tmp_path: Path) -> None:
    timeline = plan(clips[8], Broken())
    write_handles(timeline, timeline.transitions[0], tmp_path / "handles.mkv")
    with pytest.raises(GenerationError, match="broken rendered 2 frames, needed are 6"):
        render_handles(tmp_path / "handles.mkv", tmp_path / "window.mkv", Broken())
    assert [path.name for path in tmp_path.iterdir()] == ["handles.mkv"]


def test_another_revision_of_the_model_is_refused(clips: dict[int, list[Path]], tmp_path: Path) -> None:
    timeline = plan(clips[8], Noise())
    write_handles(timeline, timeline.transitions[0], tmp_path / "handles.mkv")
    newer = Noise()
    newer.spec = ModelSpec("noise", "2", renders_context=True)
    with pytest.raises(GenerationError, match="noise of revision 1, here is noise of revision 2"):
        render_handles(tmp_path / "handles.mkv", tmp_path / "window.mkv", newer)


def test_other_lora_weights_than_were_planned_with_are_refused(clips: dict[int, list[Path]], tmp_path: Path) -> None:
    model, style = Styled(), tmp_path / "style.safetensors"
    style.write_bytes(b"weights")
    known = replace(Styled.spec, loras=tuple(digest_loras([(str(style), 0.5)]).items()))
    for spec in (known, Styled.spec):  # planned where the file is, and where it is not
        timeline = plan(clips[8], Planned(spec), additional_loras={str(style): 0.5})
        write_handles(timeline, timeline.transitions[0], tmp_path / "handles.mkv")
        render_handles(tmp_path / "handles.mkv", tmp_path / "window.mkv", model)
    timeline = plan(clips[8], Planned(known), additional_loras={str(style): 0.5})
    write_handles(timeline, timeline.transitions[0], tmp_path / "handles.mkv")
    style.write_bytes(b"others!")
    with pytest.raises(GenerationError, match=rf"is for other LoRA weights than {style} holds here"):
        render_handles(tmp_path / "handles.mkv", tmp_path / "window.mkv", model)


def test_a_process_loads_a_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []

    def load(name: str) -> TransitionModel:
        loads.append(name)
        return registry.find_model(name)

    monkeypatch.setattr("splice.models.loaded.find_model", load)
    monkeypatch.setattr("splice.models.loaded._loaded", {})
    with ThreadPoolExecutor(8) as threads:
        models = list(threads.map(loaded_model, ["flow_morph"] * 20))
    assert loads == ["flow_morph"] and len(set(map(id, models))) == 1
    loaded_model("crossfade")
    assert loaded_model("crossfade") is not models[0] and loads == ["flow_morph", "crossfade"]
