"""The result in a real browser: Debian's Chromium plays it, and seeks to the right frame around every seam."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import pytest
from playwright.sync_api import Page, sync_playwright

from bench.chain import join
from flows.join_clips import join_clips
from tests.conftest import PrefectServer
from tests.footage import Code, Image, make_clip, read_code

RATE = Fraction(25)
GAP = 6
LENGTH = 30
PAGE = "<style>body {{ margin: 0 }}</style><video src='{url}' width=384 height=216 muted preload=auto></video>"
SEEK = """seconds => new Promise(done => {
    const video = document.querySelector('video');
    video.requestVideoFrameCallback(() => requestAnimationFrame(done));
    video.currentTime = seconds;
})"""
CABAC = {"gop_frames": 250, "b_frames": 3, "encoder_options": {"x264-params": "b-pyramid=normal:ref=5:b-adapt=0"}}
CAVLC = {"gop_frames": 12, "b_frames": 0, "encoder_options": {"profile": "baseline"}}

Shown = list[Code | None]
"""Of every frame what it must read as; None inside a transition."""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    chromium = shutil.which("chromium")
    assert chromium, "Debian's Chromium is the player here: make debian"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser.new_page()
        browser.close()


def clip(folder: Path, clip_id: int, suffix: str = ".mp4", **options: object) -> Path:
    return make_clip(folder / f"{clip_id}{suffix}", clip_id=clip_id, frame_count=LENGTH, tone_hz=440.0, **options)


def shown(clip_ids: list[int], removed: int = 0) -> Shown:
    """Whole clips with a gap between them; ``removed`` frames of each are replaced at every seam."""
    frames: Shown = []
    for place, clip_id in enumerate(clip_ids):
        first = removed if place else 0
        last = LENGTH - (removed if place < len(clip_ids) - 1 else 0)
        frames += [None] * (GAP if place else 0) + [(clip_id, number) for number in range(first, last)]
    return frames


def through_the_flow(folder: Path) -> tuple[Path, Shown]:
    """As a user would, of clips that are alike but for their B-frames."""
    result = join_clips(
        clip_list=[{"url": str(clip(folder, i, b_frames=2 * (i % 2)))} for i in range(3)],
        run_id=folder.name,
        model="crossfade",
        gap_frame_count=GAP,
        output_base_dir=str(folder),
    )
    return Path(result.output.path), shown([0, 1, 2])


def cabac_then_cavlc(folder: Path) -> tuple[Path, Shown]:
    clips = [clip(folder, 0, **CABAC), clip(folder, 1, **CAVLC), clip(folder, 2, **CABAC)]
    return join(clips, folder, gap_frame_count=GAP), shown([0, 1, 2])


def an_output_and_a_transport_stream(folder: Path) -> tuple[Path, Shown]:
    own = join([clip(folder, 0, **CAVLC), clip(folder, 1, **CABAC)], folder / "own", gap_frame_count=GAP)
    clips = [clip(folder, 2, ".ts", **CABAC), own, clip(folder, 3, ".ts", **CAVLC)]
    return join(clips, folder, gap_frame_count=GAP, strategy="parallel"), shown([2, 0, 1, 3])


def replaced_seams(folder: Path) -> tuple[Path, Shown]:
    """Copied, encoded and generated frames meet within a few frames."""
    steady = {"gop_frames": 12, "encoder_options": {"x264-params": "b-adapt=0"}}
    clips = [clip(folder, 0, **steady), clip(folder, 1, **CAVLC), clip(folder, 2, ".ts", **steady)]
    return join(clips, folder, gap_frame_count=GAP, replace_mode=True), shown([0, 1, 2], GAP // 2)


@pytest.mark.parametrize("make", [through_the_flow, cabac_then_cavlc, an_output_and_a_transport_stream, replaced_seams])
def test_chromium_plays_the_result_and_shows_the_right_frame_around_every_seam(
    make: Callable[[Path], tuple[Path, Shown]], page: Page, tmp_path: Path, prefect_server: PrefectServer
) -> None:
    video, expected = make(tmp_path)
    (video.parent / "page.html").write_text(PAGE.format(url=video.name))
    page.goto((video.parent / "page.html").as_uri())
    page.wait_for_function("document.querySelector('video').readyState == 4")
    seconds = float(len(expected) / RATE)
    # Sound ends with a packet of its own length.
    assert page.evaluate("document.querySelector('video').duration") == pytest.approx(seconds, abs=0.03)

    # Backwards, so that each one is a seek and none is merely played.
    for number in sorted(around_seams(expected), reverse=True):
        page.evaluate(SEEK, float((number + Fraction(1, 2)) / RATE))
        assert read_code(screenshot(page)) == expected[number], f"frame {number}"

    page.evaluate("document.querySelector('video').play()")
    page.wait_for_function("document.querySelector('video').ended", timeout=20_000)
    assert page.evaluate("document.querySelector('video').error") is None
    assert page.evaluate("document.querySelector('video').webkitAudioDecodedByteCount") > 0


@pytest.mark.parametrize("width", [390, 1280], ids=["phone", "desk"])
def test_the_report_opens_from_disk_and_shows_every_seam_moving(
    width: int, page: Page, tmp_path: Path, prefect_server: PrefectServer
) -> None:
    video, _ = through_the_flow(tmp_path)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_viewport_size({"width": width, "height": 800})
    report = (video.parent / "report.html").as_uri()
    page.goto(report)
    # It plays by itself as soon as it can be seen, and begins anew.
    page.locator("video").scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('video').currentTime > 0")
    assert [url for url in asked if not url.startswith("data:")] == [report]
    assert page.evaluate("document.querySelector('video').loop")
    # The seam with eight frames on either side.
    duration = page.evaluate("document.querySelector('video').duration")
    assert duration == pytest.approx(float((GAP + 16) / RATE), abs=0.02)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    told = json.loads((video.parent / "report.json").read_text())
    assert f"{told['seams'][0]['score']:.1f}" in page.inner_text(".score")
    assert page.locator("section").count() == 2 and "1.mp4 | 2.mp4" in page.inner_text("section >> nth=1")
    assert page.evaluate("document.querySelector('section img').naturalWidth") > 300
    links = page.eval_on_selector_all("a", "links => links.map(link => link.getAttribute('href'))")
    assert links == ["../join_0/report.html", "contact_sheet.jpg"]
    assert all((video.parent / link).exists() for link in links)


def around_seams(expected: Shown) -> set[int]:
    """Both ends, the frames before and behind each gap and where copying may begin and end, and the middle of it."""
    begins = [n for n in range(1, len(expected)) if expected[n] is None and expected[n - 1] is not None]
    offsets = (-11, -4, -2, -1, GAP // 2, GAP, GAP + 1, GAP + 8, GAP + 9, GAP + 12)
    return {0, 1, len(expected) - 2, len(expected) - 1} | {begin + offset for begin in begins for offset in offsets}


def screenshot(page: Page) -> Image:
    with av.open(io.BytesIO(page.screenshot(clip={"x": 0, "y": 0, "width": 384, "height": 216}))) as picture:
        return next(picture.decode(video=0)).to_ndarray(format="rgb24")
