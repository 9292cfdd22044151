"""The pictures in ``docs/images``, made anew: ``python -m bench.screenshots``.

Starts a fleet of its own, lets ``join-clips/prod`` join the demo's clips on it, and photographs Prefect's UI in
Chromium: the run with its graph, the table of joins, and a seam.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import typer
from playwright.sync_api import Page, sync_playwright
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_API_PORT, temporary_settings

from bench.demo import cut
from bench.footage import BIG_BUCK_BUNNY
from bench.kill_matrix import deploy, wait_for_end
from deployments import fleet

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
PORT = 4295
SETTLE_MS = 6000
"""The UI draws its graph a while after the page has loaded."""


def main() -> None:
    """Join, photograph, write."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    api_url = f"http://127.0.0.1:{PORT}/api"
    with tempfile.TemporaryDirectory(prefix="screenshots-") as name:
        home = Path(name)
        with temporary_settings({PREFECT_SERVER_API_PORT: PORT, PREFECT_API_URL: api_url}):
            fleet.bring_up(home, str(home / "results"))
            try:
                deploy()
                photograph(join(home), api_url.removesuffix("/api"))
            finally:
                fleet.take_down(home)


def join(home: Path) -> FlowRun:
    clips = cut(BIG_BUCK_BUNNY.path(), home / "clips")
    parameters = {
        "clip_list": [{"url": clip} for clip in clips],
        "run_id": "rabbit",
        "model": "flow_morph",
        "gap_frame_count": 12,
        "output_base_dir": str(home / "outputs"),
    }
    return wait_for_end(run_deployment("join-clips/prod", parameters=parameters, timeout=0))  # type: ignore[arg-type]


def photograph(run: FlowRun, ui_url: str) -> None:
    with get_client(sync_client=True) as client:
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        artifacts = {str(artifact.key): artifact.id for artifact in client.read_artifacts(artifact_filter=of_run)}
    pages = {"flow_run": f"runs/flow-run/{run.id}"}
    for picture, kind in (("joins", "joins-"), ("seams", "seams-")):
        (key,) = [key for key in artifacts if key.startswith(kind)]
        pages[picture] = f"artifacts/artifact/{artifacts[key]}"
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=options)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        for picture, path in pages.items():
            shoot(page, f"{ui_url}/{path}", IMAGES / f"{picture}.png")
        browser.close()


def shoot(page: Page, url: str, picture: Path) -> None:
    page.goto(url)
    page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=picture)
    print(picture)


if __name__ == "__main__":
    typer.run(main)
