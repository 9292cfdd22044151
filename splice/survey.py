"""From a request to its plan: look at every file that it names, once, and lay the joins."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from splice.media import identify_clip, probe_clip, probe_soundtrack
from splice.models import spec_of
from splice.plan import plan_timeline
from splice.request import ClipSource, JoinRequest
from splice.types import Clip, ClipIdentity, Soundtrack, Timeline


def plan_request(request: JoinRequest, identify: Callable[[str], ClipIdentity] = identify_clip) -> Timeline:
    """Probe every clip and the music, and lay every join to the frame. Writes nothing. Raises RequestError."""

    def probe(index: int, source: ClipSource) -> Clip:
        return probe_clip(index, source.label, source.path, identify(source.path))

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        clips = list(pool.map(probe, range(len(request.clip_list)), request.clip_list))
    models = {request.settings(join).model for join in range(request.join_count)}
    return plan_timeline(request, clips, {name: spec_of(name) for name in models}, _find_soundtrack(request))


def _find_soundtrack(request: JoinRequest) -> Soundtrack | None:
    if request.soundtrack is None:
        return None
    path = ClipSource(url=request.soundtrack).path
    probe_soundtrack(path)
    return Soundtrack(str(Path(path).resolve()), request.soundtrack_gain_db, identify_clip(path))
