"""From a request to its plan: look at every file that it names, once, and lay the joins."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from splice.media import identify_clip, probe_clip, probe_soundtrack
from splice.models import find_model, spec_of
from splice.models.protocol import ModelSpec
from splice.models.weights import check_loras, digest_loras, pinned, require_repository
from splice.plan import plan_timeline
from splice.request import ClipSource, JoinRequest
from splice.settings import settings
from splice.storage import RemoteIdentity, S3Access, cached_sha256, fetch, locate, redacted
from splice.types import Clip, ClipIdentity, JoinSettings, Soundtrack, SourceFile, Timeline


def locate_files(request: JoinRequest, access: S3Access | None = None) -> dict[str, RemoteIdentity]:
    """By url, every file that is not on this machine, as it is now; nothing is downloaded.

    Raises RequestError: missing, no permission, too large; TransferError: it can't be reached now.
    """
    urls = list(dict.fromkeys(source.url for _, source in request.sources() if source.is_remote))
    with ThreadPoolExecutor(max_workers=8) as pool:
        return dict(zip(urls, pool.map(lambda url: locate(url, access), urls), strict=True))


def fetch_file(url: str, located: RemoteIdentity, access: S3Access | None = None) -> SourceFile:
    """Download a file into the cache, if it is not there yet. Raises RequestError, MediaError, TransferError."""
    path = fetch(url, access)
    identity = ClipIdentity(located.size_bytes, 0, cached_sha256(path) or "", located.version)
    return SourceFile(str(path), redacted(url), identity)


def local_files(request: JoinRequest, identify: Callable[[str], ClipIdentity] = identify_clip) -> dict[str, SourceFile]:
    """By url, every file that is on this machine already. Raises RequestError: missing, or can't be read."""
    sources = {source.url: source.path for _, source in request.sources() if not source.is_remote}
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        identities = pool.map(identify, sources.values())
    return {
        url: SourceFile(path, str(Path(path).resolve()), identity)
        for (url, path), identity in zip(sources.items(), identities, strict=True)
    }


def find_specs(request: JoinRequest) -> dict[str, ModelSpec]:
    """By name, every model that is asked for. Raises RequestError: unknown, or it is to run here and can't."""
    asked = [request.settings(join) for join in range(request.join_count)]
    names = dict.fromkeys(each.model for each in asked)
    if request.enhance_prompt and not Path(settings().prompt_model).is_dir():
        pinned(settings().prompt_model)
    if request.gpu_deployment:
        specs = {name: spec_of(name) for name in names}
    else:
        if request.enhance_prompt:
            require_repository(settings().prompt_model)
        for each in asked:
            check_loras(each.model_settings.additional_loras)
        specs = {name: find_model(name).spec for name in names}
    return {name: _with_loras(spec, [each for each in asked if each.model == name]) for name, spec in specs.items()}


def _with_loras(spec: ModelSpec, asked: Iterable[JoinSettings]) -> ModelSpec:
    """The same, knowing what files of LoRA weights hold. What lies on the GPU's machine alone counts by its name."""
    digests = digest_loras(lora for each in asked for lora in each.model_settings.additional_loras)
    return replace(spec, loras=tuple(sorted(digests.items())))


def plan_request(request: JoinRequest, files: Mapping[str, SourceFile]) -> Timeline:
    """Probe every clip and the music, and lay every join to the frame. Writes nothing. Raises RequestError.

    files: by url, all that the request names.
    """

    def probe(index: int, source: ClipSource) -> Clip:
        file = files[source.url]
        clip = probe_clip(index, source.label, file.path, file.identity)
        return replace(clip, url=file.url) if source.is_remote else clip

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        clips = list(pool.map(probe, range(len(request.clip_list)), request.clip_list))
    return plan_timeline(request, clips, find_specs(request), _find_soundtrack(request, files))


def _find_soundtrack(request: JoinRequest, files: Mapping[str, SourceFile]) -> Soundtrack | None:
    if request.soundtrack is None:
        return None
    file = files[request.soundtrack]
    probe_soundtrack(file.path)
    return Soundtrack(str(Path(file.path).resolve()), file.url, request.soundtrack_gain_db, file.identity)
