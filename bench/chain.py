"""A whole run in this process, through the core alone: no Prefect, no hashing, no records.

``python -m bench.chain a.mp4 b.mp4 --folder out`` joins clips; any other parameter as ``--parameter name=value``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer

from splice.join import write_join
from splice.layout import RunFolder
from splice.models.protocol import TransitionModel
from splice.models.registry import find_model
from splice.request import parse_request
from splice.survey import local_files, plan_request
from splice.types import ClipIdentity, Timeline
from splice.units import write_segment, write_transition


def join(clips: Sequence[Path], folder: Path, **parameters: Any) -> Path:
    """Join clips by a request's parameters; returns the final video."""
    sources = [{"url": str(path)} for path in clips]
    request = parse_request({"clip_list": sources, "run_id": "bench", "model": "crossfade", **parameters})
    timeline = plan_request(request, local_files(request, _unhashed))
    names = {transition.settings.model for transition in timeline.transitions}
    return execute(timeline, {name: find_model(name) for name in names}, RunFolder(folder))[-1]


def _unhashed(path: str) -> ClipIdentity:
    stat = Path(path).stat()
    return ClipIdentity(stat.st_size, stat.st_mtime_ns, "")


def execute(timeline: Timeline, models: Mapping[str, TransitionModel], folder: RunFolder) -> list[Path]:
    """What a run does: encode every unit once, side by side, and write each output once its units are there.

    Returns the outputs.
    """
    outputs: list[Path] = []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        made: dict[str, list[Future[Any]]] = {}
        for step in timeline.joins:
            made[step.name] = [pool.submit(write_segment, timeline, each, folder) for each in step.encoded_segments]
            made[step.name] += [
                pool.submit(write_transition, timeline, each, models[each.spec.name], folder)
                for each in step.transitions
            ]
        for step in timeline.joins:
            for future in made[step.name]:
                future.result()
            write_join(timeline, step, folder, outputs[-1] if outputs else None)
            outputs.append(folder.joined_output(step.name))
    return outputs


def main(
    clips: list[Path],
    folder: Annotated[Path, typer.Option()],
    parameter: Annotated[list[str], typer.Option()] = [],  # noqa: B006 - typer's own way of saying "may be repeated"
) -> None:
    """Print the path of the final video."""
    given: dict[str, Any] = dict(each.split("=", 1) for each in parameter)
    print(join(clips, folder, **given))


if __name__ == "__main__":
    typer.run(main)
