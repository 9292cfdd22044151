"""The splice beside what you would use instead, and beside what nothing can do without: ``python -m bench.splice``.

Prints one table and the aims with what was measured, and writes both to ``bench/results/splice.md``. ``--quick`` takes
the smallest case of each kind, ``--only TEXT`` those whose names hold it; both write nothing. Needs Debian's ffmpeg and
what ``bench/footage.py`` names.

Every measurement is a process of its own, started cold: its wall time has Python's start and the imports in it; no
memory is free but what the page cache gives up, and the clips are in it. Ours
is ``bench/chain.py`` with the model ``crossfade``: the splice alone, without Prefect. What the rivals do stands in
``bench/rivals.py``. No time is believed before the output's frames are counted, by packets, and its sound's length is
found right.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, BinaryIO

import typer

from bench.rivals import GAP_FRAMES, RATE, Task, filter_commands, floor_command, repeated_commands

RESULTS = Path(__file__).parent / "results" / "splice.md"
FFPROBE = "/usr/bin/ffprobe"

SLACK_SECONDS = 0.1
"""By which sound may be longer or shorter than the pictures: some packets of AAC."""

REPEATS = 3
"""Of ours and of the floor, of which the median counts; once where the result is long; the rivals run once."""

LONG_SECONDS = 900


@dataclass(frozen=True)
class Case:
    """Clips to join. filters, chain: whether the rivals (a) and (b) are measured; they take minutes and more."""

    clip_count: int
    seconds: int
    height: int
    has_sound: bool
    filters: bool = False
    chain: bool = False

    @property
    def name(self) -> str:
        length = f"{self.seconds // 60} min" if self.seconds % 60 == 0 else f"{self.seconds} s"
        return f"{self.clip_count} x {length}, {self.height}p, {'sound' if self.has_sound else 'silent'}"

    def task(self, folder: Path) -> Task:
        return Task(folder, self.clip_count, self.seconds, self.height, self.has_sound)


FILTERED_SECONDS = (10, 60, 600)
"""Clips of 20 minutes take (a) half an hour."""

MOST_FILTERED_CLIPS = 8

CHAIN_WITH_SOUND = False
"""Of the 10 clips: another quarter of an hour."""

MOST_CHAINED_CLIPS = 4
"""Of those of 20 s: every doubling takes (b) four times as long."""


def _silent_and_sound(
    clip_count: int, seconds: int, height: int, filters: bool, chain: bool = False, rivals_with_sound: bool = False
) -> list[Case]:
    return [
        Case(clip_count, seconds, height, False, filters, chain),
        Case(clip_count, seconds, height, True, filters and rivals_with_sound, chain and CHAIN_WITH_SOUND),
    ]


NAMED = [
    *_silent_and_sound(2, 120, 1080, filters=True, rivals_with_sound=True),
    *_silent_and_sound(10, 60, 720, filters=True, chain=True),
]
COUNTS = [
    case
    for clip_count in (2, 4, 8, 16, 32)
    for case in _silent_and_sound(
        clip_count, 20, 720, filters=clip_count <= MOST_FILTERED_CLIPS, chain=2 < clip_count <= MOST_CHAINED_CLIPS
    )
]
LENGTHS = [
    case
    for seconds in (10, 60, 300, 600, 1200)
    for case in _silent_and_sound(2, seconds, 1080, filters=seconds in FILTERED_SECONDS)
]
QUICK = [
    *_silent_and_sound(2, 10, 1080, filters=True, rivals_with_sound=True),
    *_silent_and_sound(4, 20, 720, filters=True, chain=True),
]


@dataclass(frozen=True)
class Run:
    """One measurement. others: the share of the machine that other processes had meanwhile, 0..1."""

    seconds: float
    peak_mb: float
    others: float


@dataclass(frozen=True)
class Measured:
    """A row of the table. Seconds of ours and of the floor are medians; peak_mb is the highest of ours, sequential."""

    case: Case
    frames: int
    input_mb: float
    sequential: float
    parallel: float
    floor: float
    filters: float | None
    chain: float | None
    peak_mb: float
    others: float


def main(
    quick: Annotated[bool, typer.Option(help="The smallest case of each kind; writes no file.")] = False,
    only: Annotated[str, typer.Option(help="Cases whose names hold this; writes no file.")] = "",
) -> None:
    """Measures every case, prints the table as it grows, and writes it."""
    started, load = time.monotonic(), os.getloadavg()[0]
    lines = [HEADER, "", COLUMNS, f"|---|{'---:|' * (COLUMNS.count('|') - 2)}"]
    print("\n".join(lines))
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-splice-") as name:
        for case in QUICK if quick else [*NAMED, *COUNTS, *LENGTHS]:
            if only not in case.name:
                continue
            rows.append(measure(case, Path(name)))
            lines.append(row(rows[-1]))
            print(lines[-1], flush=True)
    others = sum(each.others for each in rows) / len(rows)
    ending = [
        "",
        *aims(rows),
        "",
        f"{os.cpu_count()} cores; other processes had {others:.0%} of them meanwhile (load {load:.1f} at the start); "
        f"{(time.monotonic() - started) / 60:.0f} minutes.",
    ]
    print("\n".join(ending))
    if not (quick or only):
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("\n".join(lines + ending) + "\n")


HEADER = f"""Joins with {GAP_FRAMES} dissolved frames inserted at every seam; `python -m bench.splice`.
Real footage in H.264 with alternating encoder settings; seconds of wall time, of ours and the floor the median of
{REPEATS} runs (one, where the result lasts {LONG_SECONDS // 60} minutes or more).

- **floor**: the clips' bytes copied, the gaps' frames encoded as ours are, and the result's sound encoded as ours is;
  nothing read, decoded or joined.
- **(a)**: FFmpeg 5.1, one filter graph of `tpad`, `xfade`, `apad` and `concat`; libx264, preset veryfast.
- **(b)**: the same, join after join, each encoding everything again; of two clips it is (a).
- `-`: not measured, since it takes too long.
- The clips are in memory, and all other memory is full of page cache, as on a machine that has been up for a day:
  memory that a virtual machine's host has yet to give took 2 s a GB to touch, which is no cost of a splice.
- **others**: the share of the machine that other processes had meanwhile; a row with much of it says little."""

COLUMNS = (
    "| case | frames | input MB | ours, sequential | ours, parallel | floor | ours / floor | seq / par "
    "| (a) | (a) / ours | (b) | (b) / ours | peak MB | others |"
)


def measure(case: Case, folder: Path) -> Measured:
    """Everything about a case. The same number of times each, in turn, so that a busy machine is busy for all."""
    task = case.task(folder)
    _run([sys.executable, "-m", "bench.splice_footage", *task.arguments])
    sequential, parallel, floor = [], [], []
    for _ in range(REPEATS if case.clip_count * case.seconds < LONG_SECONDS else 1):
        sequential.append(_time_ours(task, "sequential"))
        parallel.append(_time_ours(task, "parallel"))
        floor.append(_time_floor(task))
    filters = _time_rival(task, filter_commands) if case.filters else []
    chain = _time_rival(task, repeated_commands) if case.chain else []
    input_mb = sum(clip.stat().st_size for clip in task.clips) / 1e6
    for clip in task.clips:
        clip.unlink()
    runs = [*sequential, *parallel, *floor, *filters, *chain]
    return Measured(
        case=case,
        frames=task.frame_count,
        input_mb=input_mb,
        sequential=median(run.seconds for run in sequential),
        parallel=median(run.seconds for run in parallel),
        floor=median(run.seconds for run in floor),
        filters=_total_seconds(filters),
        chain=_total_seconds(filters if case.clip_count == 2 else chain),
        peak_mb=max(run.peak_mb for run in sequential),
        others=sum(run.others * run.seconds for run in runs) / sum(run.seconds for run in runs),
    )


def _total_seconds(runs: Sequence[Run]) -> float | None:
    return sum(run.seconds for run in runs) if runs else None


def _time_ours(task: Task, strategy: str) -> Run:
    _fill_page_cache(task)
    folder = task.folder / "ours"
    parameters = {
        "model": "crossfade",
        "gap_frame_count": GAP_FRAMES,
        "strategy": strategy,
        "audio": "bridge" if task.has_sound else "drop",
    }
    command = [sys.executable, "-m", "bench.chain", *map(str, task.clips), "--folder", str(folder)]
    for name, value in parameters.items():
        command += ["--parameter", f"{name}={value}"]
    run, printed = _run(command)
    _require_whole(Path(printed.splitlines()[-1]), task)
    _set_aside(folder)
    return run


def _time_floor(task: Task) -> Run:
    _fill_page_cache(task)
    folder = Path(tempfile.mkdtemp(dir=task.folder))
    run, _ = _run(floor_command(task, folder))
    _set_aside(folder)
    return run


def _time_rival(task: Task, commands: Callable[[Task, Path], list[list[str]]]) -> list[Run]:
    _fill_page_cache(task)
    folder = Path(tempfile.mkdtemp(dir=task.folder))
    output = folder / "joined.mp4"
    runs = [_run(command)[0] for command in commands(task, output)]
    _require_whole(output, task)
    _set_aside(folder)
    return runs


def _set_aside(folder: Path) -> None:
    """Keep what was written until it is in memory no longer: deleting it sooner would free the memory of its pages."""
    aside = folder.parent / "aside"
    aside.mkdir(exist_ok=True)
    folder.rename(aside / f"{time.monotonic_ns():020}")
    kept = sorted(aside.iterdir())
    while sum(_bytes(each) for each in kept) > ASIDE_BYTES:
        shutil.rmtree(kept.pop(0))


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


ASIDE_BYTES = 40 * 10**9
"""Of outputs that were measured and are still kept: more than the memory of the machines that this runs on."""


def _fill_page_cache(task: Task) -> None:
    """Leave no memory free, as on a machine that has been up for a day, and the clips in memory.

    Free memory of a virtual machine is its host's: to touch it first cost 2 s a GB here, which whoever writes more
    bytes would pay for.
    """
    with _holes(task.folder) as holes:
        while _free_bytes() > MOST_FREE_BYTES:
            if not holes.read(2**26):
                holes.seek(0)
    for clip in task.clips:
        with clip.open("rb", buffering=0) as file:
            while file.read(2**24):
                pass


MOST_FREE_BYTES = 2**30


@contextmanager
def _holes(folder: Path) -> Iterator[BinaryIO]:
    """A file of holes, twice as large as the memory, read on from where it was left: there it is cached no longer."""
    path, position = folder / "holes", folder / "holes.position"
    with path.open("ab") as file:
        file.truncate(2 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with path.open("rb", buffering=0) as file:
        file.seek(int(position.read_text()) if position.exists() else 0)
        yield file
        position.write_text(str(file.tell()))


def _free_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _run(command: Sequence[str]) -> tuple[Run, str]:
    """(time and peak memory of a process and its children, what it prints). What was written before is on the disk."""
    os.sync()
    busy, started = _busy_seconds(), time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    seconds = time.monotonic() - started
    others = _busy_seconds() - busy - usage.ru_utime - usage.ru_stime
    return Run(seconds, usage.ru_maxrss / 1024, max(0.0, others) / seconds / (os.cpu_count() or 1)), printed


def _busy_seconds() -> float:
    """Of all cores since the machine started: user, nice, system, and those of interrupts (man 5 proc)."""
    user, nice, system, _, _, irq, softirq = Path("/proc/stat").read_text().splitlines()[0].split()[1:8]
    return sum(map(int, (user, nice, system, irq, softirq))) / os.sysconf("SC_CLK_TCK")


def _require_whole(path: Path, task: Task) -> None:
    """Ends the program unless the file has the frames that it should have, and sound for as long where there is any.

    Counted are packets that no edit list hides.
    """
    shown = sum("D" not in flags for flags in _probe(path, "v", "packet=flags"))
    if shown != task.frame_count:
        raise SystemExit(f"{path}: {shown} frames, needed are {task.frame_count}; their time means nothing")
    sound_seconds = [float(duration) for duration in _probe(path, "a", "stream=duration")]
    needed = [task.frame_count / RATE] if task.has_sound else []
    if len(sound_seconds) != len(needed) or any(
        abs(a - b) > SLACK_SECONDS for a, b in zip(sound_seconds, needed, strict=True)
    ):
        raise SystemExit(f"{path}: sound of {sound_seconds} seconds, needed is {needed}; its time means nothing")


def _probe(path: Path, streams: str, entries: str) -> list[str]:
    command = [FFPROBE, "-v", "error", "-select_streams", streams, "-show_entries", entries, "-of", "csv=p=0"]
    return subprocess.run([*command, str(path)], stdout=subprocess.PIPE, text=True, check=True).stdout.split()


def row(measured: Measured) -> str:
    """The table's row of one case, in Markdown."""
    ours = measured.sequential
    cells = [measured.case.name, str(measured.frames), f"{measured.input_mb:.0f}"]
    cells += [f"{seconds:.1f}" for seconds in (ours, measured.parallel, measured.floor)]
    cells += [f"{ours / measured.floor:.2f}", f"{ours / measured.parallel:.2f}"]
    for rival in (measured.filters, measured.chain):
        cells += ["-", "-"] if rival is None else [f"{rival:.0f}", f"{rival / ours:.0f}x"]
    return f"| {' | '.join(cells)} | {measured.peak_mb:.0f} | {measured.others:.0%} |"


MOST_OVER_FLOOR = 2.0
MOST_OVER_PARALLEL = 1.5
MOST_MB = 900
MOST_GROWTH = 1.1
"""Of memory, from clips of a minute to the longest: what a flat line may vary by."""


def aims(rows: Sequence[Measured]) -> list[str]:
    """What the splice is to reach, whether it does, and what was measured."""
    ten, long = (Case(10, 60, 720, False, True, True), Case(2, 600, 1080, False, True))
    worst_floor = max(rows, key=lambda each: each.sequential / each.floor)
    worst_parallel = max(rows, key=lambda each: each.sequential / each.parallel)
    largest = max(rows, key=lambda each: each.peak_mb)
    over_floor = worst_floor.sequential / worst_floor.floor
    over_parallel = worst_parallel.sequential / worst_parallel.parallel
    return [
        _at_most("ours / floor, everywhere", over_floor, MOST_OVER_FLOOR, f"in {worst_floor.case.name}"),
        _at_least("(a) / ours, 10 clips, silent", _ratio(rows, ten, lambda each: each.filters), 10),
        _at_least("(b) / ours, 10 clips, silent", _ratio(rows, ten, lambda each: each.chain), 60),
        _at_least("(a) / ours, 2 x 10 min 1080p, silent", _ratio(rows, long, lambda each: each.filters), 40),
        _at_most("peak memory in MB, everywhere", largest.peak_mb, MOST_MB, f"in {largest.case.name}"),
        *(_flatness(rows, has_sound) for has_sound in (False, True)),
        _at_most(
            "sequential / parallel, everywhere", over_parallel, MOST_OVER_PARALLEL, f"in {worst_parallel.case.name}"
        ),
    ]


def _ratio(rows: Sequence[Measured], case: Case, rival: Callable[[Measured], float | None]) -> float | None:
    found = next((each for each in rows if each.case == case), None)
    seconds = rival(found) if found else None
    return seconds / found.sequential if found and seconds is not None else None


def _flatness(rows: Sequence[Measured], has_sound: bool) -> str:
    """Of two clips' peak memory from a minute to the longest: the largest over the smallest."""
    peaks = {
        each.case.seconds: each.peak_mb
        for each in rows
        if each.case in LENGTHS and each.case.seconds >= 60 and each.case.has_sound == has_sound
    }
    what = f"peak memory over length, from 1 to {LENGTHS[-1].seconds // 60} min, {'sound' if has_sound else 'silent'}"
    growth = max(peaks.values()) / min(peaks.values()) if len(peaks) > 1 else None
    return _at_most(what, growth, MOST_GROWTH, ", ".join(f"{peak:.0f}" for peak in peaks.values()) + " MB")


def _at_most(what: str, value: float | None, limit: float, where: str) -> str:
    return _aim(f"{what}: at most {limit:g}", value, value is not None and value <= limit, where)


def _at_least(what: str, value: float | None, limit: float) -> str:
    return _aim(f"{what}: at least {limit:g}", value, value is not None and value >= limit)


def _aim(what: str, value: float | None, is_met: bool, where: str = "") -> str:
    if value is None:
        return f"- {what}: not measured"
    number = f"{value:.0f}" if value >= 100 else f"{value:.2f}"
    return f"- {what}: **{'yes' if is_met else 'no'}**, {number}{f' ({where})' if where else ''}"


if __name__ == "__main__":
    typer.run(main)
