"""The result in a real browser: Debian's Chromium plays it, and seeks to the right frame around every seam."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import pytest
from playwright.sync_api import Page, sync_playwright

from flows.join_clips import join_clips
from tests.conftest import PrefectServer
from tests.footage import make_clip, read_code

RATE = Fraction(25)
PAGE = "<style>body {{ margin: 0 }}</style><video src='{url}' width=384 height=216 muted preload=auto></video>"
SEEK = """seconds => new Promise(done => {
    const video = document.querySelector('video');
    video.requestVideoFrameCallback(() => requestAnimationFrame(done));
    video.currentTime = seconds;
})"""


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


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, prefect_server: PrefectServer) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    clips = [make_clip(folder / f"{i}.mp4", clip_id=i, frame_count=30, b_frames=2 * (i % 2)) for i in range(3)]
    result = join_clips(
        clip_list=[{"url": str(clip)} for clip in clips],
        run_id="browser",
        model="crossfade",
        gap_frame_count=6,
        output_base_dir=str(folder),
    )
    return Path(result.output.path)


def test_chromium_plays_the_result_and_shows_the_right_frame_around_every_seam(video: Path, page: Page) -> None:
    (video.parent / "page.html").write_text(PAGE.format(url=video.name))
    page.goto((video.parent / "page.html").as_uri())
    page.wait_for_function("document.querySelector('video').readyState == 4")
    assert page.evaluate("document.querySelector('video').duration") == pytest.approx(float(102 / RATE), abs=0.001)

    sources = [*((0, n) for n in range(30)), *[None] * 6, *((1, n) for n in range(30)), *[None] * 6]
    sources += [(2, n) for n in range(30)]
    # Backwards, so that each one is a seek and none is merely played.
    for number in (101, 95, 73, 72, 65, 64, 37, 36, 29, 28, 10, 0):
        page.evaluate(SEEK, float((number + Fraction(1, 2)) / RATE))
        assert sources[number] == read_code(screenshot(page)), f"frame {number}"

    page.evaluate("document.querySelector('video').play()")
    page.wait_for_function("document.querySelector('video').ended", timeout=20_000)
    assert page.evaluate("document.querySelector('video').error") is None


def screenshot(page: Page):  # noqa: ANN201 - H x W x 3 uint8
    with av.open(io.BytesIO(page.screenshot(clip={"x": 0, "y": 0, "width": 384, "height": 216}))) as picture:
        return next(picture.decode(video=0)).to_ndarray(format="rgb24")
