"""Weights of the diffusion models: where they are, whether they are whole, and how they get there.

Nothing here is ever downloaded but by ``fetch``. What it fetched, it writes to ``weights.lock.json`` in the folder that
``JOIN_CLIPS_MODELS`` names: commit, size and SHA-256 of every file. What is loaded later is held to it.

A repository of the hub goes by ``owner/name``, or by ``owner/name@commit`` where it is to be that commit and no other.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, ValidationError

from splice.errors import RequestError
from splice.media import atomic_output
from splice.models.vace.presets import PRESETS, Preset, find_preset
from splice.settings import settings

LOCK = "weights.lock.json"

WANTED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*merges.txt", "tokenizer/*")
"""Of a saved pipeline, or of a vision-language model. Never pickles: whoever loads one runs its author's code."""

CLASSES = {
    "WanVACEPipeline",
    "WanVACETransformer3DModel",
    "AutoencoderKLWan",
    "UMT5EncoderModel",
    "T5EncoderModel",
    "T5Tokenizer",
    "T5TokenizerFast",
    "UniPCMultistepScheduler",
    "FlowMatchEulerDiscreteScheduler",
}
"""Which a saved pipeline may be made of."""


REPOSITORY = re.compile(r"\w[\w.-]*/[\w.-]+(@[0-9a-f]{40})?")
"""Of the hub: who made it and its name, with or without a commit."""


class LockedFile(BaseModel):
    """sha256: hexadecimal; of a file that the hub has no digest of, as it was fetched. mtime_ns: when it was that."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_bytes: int
    sha256: str
    mtime_ns: int


class LockedRepository(BaseModel):
    """revision: a commit of the hub's. files: by their path in the repository."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    revision: str
    files: dict[str, LockedFile]


class Lock(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    repositories: dict[str, LockedRepository] = {}


def split_pin(name: str) -> tuple[str, str | None]:
    """``owner/name@commit`` -> (``owner/name``, its commit; None: any)."""
    repository, _, commit = name.partition("@")
    return repository, commit or None


def home_of(name: str) -> Path:
    """The folder in which a repository of the hub has its files on this machine."""
    return settings().models / split_pin(name)[0].replace("/", "--")


def read_lock() -> Lock:
    """What was fetched so far. Raises RequestError where the file can't be understood."""
    path = settings().models / LOCK
    if not path.exists():
        return Lock()
    try:
        return Lock.model_validate_json(path.read_text())
    except ValidationError as error:
        raise RequestError(f"{path}: is no lock file of this program; delete it and fetch the weights again") from error


def pinned(name: str) -> str:
    """The repository with its commit: the one that is named, or the one that was fetched to this machine.

    Raises RequestError where neither is known: other weights would pass for the same.
    """
    repository, commit = split_pin(name)
    if commit:
        return name
    if locked := read_lock().repositories.get(repository):
        return f"{repository}@{locked.revision}"
    raise RequestError(
        f"{repository} was never fetched to this machine; fetch it: python -m splice.models fetch {repository}, or, "
        f"where it is another machine that needs it, name the commit: {repository}@ and 40 hexadecimal digits"
    )


def missing_files(name: str, files: tuple[str, ...] = ()) -> list[str]:
    """Why a repository can't be loaded: each missing or cut-off file in a phrase. files: those needed; all if empty."""
    repository, commit = split_pin(name)
    locked = read_lock().repositories.get(repository)
    if locked is None:
        return [f"{repository} was never fetched"]
    if commit not in (None, locked.revision):
        return [f"{repository} was fetched at commit {locked.revision}, needed is {commit}"]
    home = home_of(repository)
    unknown = [f"{repository}: {name} was never fetched" for name in files if name not in locked.files]
    wanted = {name: file for name, file in locked.files.items() if not files or name in files}
    return unknown + [
        f"{home / name} is not there, or not what was fetched"
        for name, file in wanted.items()
        if not _is_intact(home / name, file)
    ]


def _is_intact(path: Path, file: LockedFile) -> bool:
    """Read is only a file that was touched since: the weights are many gigabytes."""
    if not path.is_file() or path.stat().st_size != file.size_bytes:
        return False
    mtime_ns = path.stat().st_mtime_ns
    return mtime_ns == file.mtime_ns or _known_digest(path, mtime_ns) == file.sha256


@cache
def _known_digest(path: Path, mtime_ns: int) -> str:
    """Read once a process, as long as it stays what it is."""
    return _digest(path)


def repositories_of(preset: Preset) -> dict[str, tuple[str, ...]]:
    """By repository the files that a preset needs of it; none: a whole saved pipeline."""
    needed: dict[str, tuple[str, ...]] = {preset.repository: ()}
    for lora in preset.loras:
        needed[lora.repository] = (*needed.get(lora.repository, ()), lora.file)
    return needed


def require_weights(preset: Preset) -> Path:
    """The folder of a preset's pipeline. Raises RequestError: what is missing, and the command that fetches it."""
    problems = [
        problem for repository, files in repositories_of(preset).items() for problem in missing_files(repository, files)
    ]
    if problems:
        raise RequestError(
            f"model {preset.name}: {'; '.join(problems[:3])}; fetch it: python -m splice.models fetch {preset.name}"
        )
    home = home_of(preset.repository)
    check_classes(home)
    return home


def require_repository(name: str) -> Path:
    """The folder of that name, or of the repository that was fetched. Raises RequestError as above."""
    if Path(name).is_dir():
        return Path(name).resolve()
    if problems := missing_files(name):
        raise RequestError(f"{'; '.join(problems[:3])}; fetch it: python -m splice.models fetch {name}")
    return home_of(name)


def check_loras(loras: Iterable[tuple[str, float]]) -> None:
    """Raises RequestError where one of (file, weight) is no safetensors file."""
    for file, _ in loras:
        if not Path(file).is_file() or Path(file).suffix != ".safetensors":
            raise RequestError(f"additional_loras: {file}: needed is a safetensors file that is there")


def digest_loras(loras: Iterable[tuple[str, float]]) -> dict[str, str]:
    """By file, a digest of the LoRA weights that this machine can read."""
    return {file: digest_contents({"": Path(file)}) for file, _ in loras if Path(file).is_file()}


DIGESTED_BYTES = 2**20
"""Of each file: weights of the same shape differ from the start."""


def digest_contents(files: Mapping[str, Path]) -> str:
    """A digest of files' names, sizes and beginnings: other weights, another digest. Raises OSError."""
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(DIGESTED_BYTES))
    return digest.hexdigest()[:16]


def check_classes(folder: Path) -> None:
    """Raises RequestError where a folder is no saved WanVACEPipeline, or one with code of its own."""
    index = folder / "model_index.json"
    try:
        parts = json.loads(index.read_text())
    except (OSError, ValueError) as error:
        raise RequestError(f"{folder}: is no saved pipeline (model_index.json can't be read)") from error
    if not isinstance(parts, dict) or parts.get("_class_name") != "WanVACEPipeline":
        raise RequestError(f"{folder}: is no WanVACEPipeline, by its model_index.json")
    for name, part in parts.items():
        if isinstance(part, list) and part[-1] is not None and part[-1] not in CLASSES:
            raise RequestError(f"{index}: {name} is a {part[-1]}; allowed are {', '.join(sorted(CLASSES))}")


def fetch(name: str) -> Iterator[str]:
    """Download what a preset, or a repository of the hub, needs: resumed where it was cut, checked, then locked.

    Yields what is done, for the user. Raises RequestError: unknown, not to be had, or a file is not what the hub says
    it is, or not what it was when it was locked.
    """
    if find_spec("huggingface_hub") is None:
        raise RequestError("fetching weights needs the gpu extra: pip install -c constraints.txt '.[gpu]'")
    preset = find_preset(name)
    if preset is None and not REPOSITORY.fullmatch(name):
        raise RequestError(
            f"{name}: has no weights to fetch; those that have are {', '.join(PRESETS)}, and repositories of the hub "
            f"(owner/name, or owner/name@commit)"
        )
    needed = repositories_of(preset) if preset else {name: ()}
    for wanted, files in needed.items():
        repository, commit = split_pin(wanted)
        yield f"{repository} ..."
        locked = _fetch_repository(repository, commit, files)
        _write_lock(repository, locked)
        total = sum(file.size_bytes for file in locked.files.values())
        yield f"{repository}: {len(locked.files)} files, {total / 1e9:.1f} GB, commit {locked.revision}"


def _fetch_repository(repository: str, commit: str | None, files: tuple[str, ...]) -> LockedRepository:
    """commit: None: the one that is locked, or where there is none the newest."""
    held = read_lock().repositories.get(repository)
    is_same = held is not None and commit in (None, held.revision)
    known = held.files if held and is_same else {}
    info, wanted = _download(repository, files, held.revision if held and is_same else commit)
    found = {
        each.rfilename: _check(home_of(repository) / each.rfilename, each, known.get(each.rfilename)) for each in wanted
    }
    # An index of another commit's shards would be loaded as if it were this one's.
    for stale in (held.files.keys() if held else set()) - known.keys() - found.keys():
        (home_of(repository) / stale).unlink(missing_ok=True)
    return LockedRepository(revision=info.sha, files={**known, **found})


def _download(repository: str, files: tuple[str, ...], revision: str | None) -> tuple[Any, list[Any]]:
    """(the hub's word of the repository, its word of each file that is now here)."""
    import httpx2
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        info = HfApi().model_info(repository, revision=revision, files_metadata=True)
        offered = info.siblings or []
        wanted = [each for each in offered if any(fnmatch(each.rfilename, pattern) for pattern in files or WANTED)]
        names = [each.rfilename for each in wanted]
        absent = [file for file in files or ("*.safetensors",) if not any(fnmatch(name, file) for name in names)]
        if absent:
            raise RequestError(f"{repository}: has no {', '.join(absent)} in revision {info.sha}")
        for each in wanted:
            path = home_of(repository) / each.rfilename
            # The hub's library takes a file for whole that it once wrote whole.
            if path.exists() and path.stat().st_size != each.size:
                path.unlink()
        snapshot_download(repository, revision=info.sha, local_dir=home_of(repository), allow_patterns=names)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, httpx2.HTTPError) as error:
        raise RequestError(
            f"{repository}: {error}; is that its name on the hub, is there a connection, and are its terms accepted?"
        ) from error
    except OSError as error:
        _refuse_folder(error)
    return info, wanted


def _refuse_folder(error: OSError) -> NoReturn:
    raise RequestError(
        f"{settings().models}: weights can't be written there ({error.strerror or error}); free some space, or let "
        f"JOIN_CLIPS_MODELS name another folder"
    ) from error


def _check(path: Path, offered: Any, known: LockedFile | None) -> LockedFile:
    """offered: the hub's word of the file. known: as it was fetched before, at the same commit."""
    digest = _digest(path)
    expected = offered.lfs.sha256 if offered.lfs else known and known.sha256
    is_blob = offered.lfs or offered.blob_id in (None, _git_blob(path))
    if expected not in (None, digest) or not is_blob:
        path.unlink()
        raise RequestError(f"{path}: is not the file that the hub has; it was deleted; fetch it again")
    return LockedFile(size_bytes=path.stat().st_size, sha256=digest, mtime_ns=path.stat().st_mtime_ns)


def _git_blob(path: Path) -> str:
    """What git, and so the hub, calls a file of this content that is stored in the repository itself."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_lock(repository: str, locked: LockedRepository) -> None:
    from filelock import FileLock

    path = settings().models / LOCK
    # Somebody else may be fetching another model.
    with FileLock(path.with_name(f".{LOCK}")):
        lock = Lock(repositories={**read_lock().repositories, repository: locked})
        with atomic_output(path) as partial:
            partial.write_text(lock.model_dump_json(indent=2) + "\n")
