"""A saved pipeline through the whole program: its frames are where the plan says, and nothing else has changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.join_clips import join_clips
from tests.conftest import ROOT, PrefectServer
from tests.footage import read_codes, read_pictures
from tests.test_gpu_worker import started
from tests.test_pool import deploy
from tests.tiny_vace import save_pipeline

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("tiny") / "pipeline")


@pytest.mark.parametrize("replace_mode", [False, True], ids=["insert", "replace"])
def test_everything_but_the_gaps_is_the_sources(
    numbered_clips: list[Path], pipeline: Path, tmp_path: Path, replace_mode: bool
) -> None:
    clips, gap = numbered_clips[:3], 6
    results = {}
    for strategy in ("sequential", "parallel"):
        state = join_clips(
            clip_list=[{"url": str(clip)} for clip in clips],
            run_id=f"tiny-{strategy}-{replace_mode}",
            model=str(pipeline),
            num_inference_steps=1,
            seed=3,
            gap_frame_count=gap,
            blend_frames=0,
            replace_mode=replace_mode,
            strategy=strategy,
            output_base_dir=str(tmp_path),
            return_state=True,
        )
        assert state.is_completed(), state.message
        results[strategy] = Path(state.result().output.path)
    frames = [30, 26, 28]
    expected: list[tuple[int, int] | None] = []
    for clip, count in enumerate(frames):
        first = gap - gap // 2 if replace_mode and clip > 0 else 0
        last = count - (gap // 2 if replace_mode and clip < 2 else 0)
        expected += [None] * gap if clip > 0 else []
        expected += [(clip, number) for number in range(first, last)]
    for video in results.values():
        codes = read_codes(video)
        assert len(codes) == len(expected)
        assert [code for code, want in zip(codes, expected, strict=True) if want] == [want for want in expected if want]
    chain, stitch = ([picture.tobytes() for picture in read_pictures(video)] for video in results.values())
    assert chain == stitch


def test_the_command_line_takes_a_saved_pipeline(
    numbered_clips: list[Path], pipeline: Path, tmp_path: Path, prefect_server: PrefectServer
) -> None:
    options = ["--model", str(pipeline), "--num-inference-steps", "1", "--gap-frames", "5", "--time-stride", "2"]
    command = [sys.executable, "-m", "flows.join_clips", *map(str, numbered_clips[:2]), *options]
    ran = subprocess.run(
        [*command, "--output-base-dir", str(tmp_path)],
        cwd=ROOT,
        env=prefect_server.environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    codes = read_codes(Path(ran.stdout.splitlines()[-1]))
    assert len(codes) == 30 + 5 + 26 and codes[:25] == [(0, n) for n in range(25)]
    (report,) = tmp_path.rglob("report.json")
    (seam,) = json.loads(report.read_text())["seams"]
    assert seam["settings"]["time_stride"] == 2 and seam["model"]["memory_plan"] == "on the CPU"


def test_the_warm_worker_renders_from_handles_alone(
    numbered_clips: list[Path], pipeline: Path, tmp_path: Path, prefect_server: PrefectServer
) -> None:
    settings = {
        "clip_list": [{"url": str(clip)} for clip in numbered_clips[:3]],
        "model": str(pipeline),
        "num_inference_steps": 1,
        "seed": 3,
        "gap_frame_count": 6,
        "replace_mode": True,
        "vid2vid_strength": 0.5,
        "strategy": "parallel",
        "output_base_dir": str(tmp_path),
    }
    inline = join_clips(run_id="tiny-inline", **settings)
    deployment = deploy("vace")
    with started(prefect_server, tmp_path / "worker.log", "vace"):
        pooled = join_clips(run_id="tiny-pool", gpu_deployment=deployment, **settings)
    here, there = (
        [picture.tobytes() for picture in read_pictures(Path(each.output.path))] for each in (inline, pooled)
    )
    assert here == there
