"""How a model is laid over the card's memory and the host's: the fastest way that fits, then the next."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import psutil

from splice.models.vace.presets import Preset

GIB = 2**30
VAE_GIB = 0.5
"""Of weights, in float32."""

ACTIVATION_GIB_PER_MEGAPIXEL = 0.3
"""Of one step, and of a frame of the window's; measured by nobody here: ``docs/gpu-check.md`` measures it."""

SPARE_GIB = 6.0
"""Left free where all is on the card: LoRA weights, CUDA's own, and what is lost between blocks."""

LEAST_GIB = 2.0
"""What group offload leaves on the card besides activations."""


class Plan(Enum):
    """From the fastest to the most frugal; each value is how the report calls it."""

    CPU = "on the CPU"
    CARD = "all on the card"
    MODEL_OFFLOAD = "model offload"
    GROUP_OFFLOAD = "group offload, VAE in tiles"
    GROUP_OFFLOAD_FP8 = "group offload, weights in fp8, VAE in tiles"


SAME_FRAMES = {Plan.CARD, Plan.MODEL_OFFLOAD}
"""These differ in where the weights wait, in no number: tiles and fp8 make other frames."""


@dataclass(frozen=True)
class ChosenPlan:
    """plan, and why it was chosen: for the report."""

    plan: Plan
    reason: str


@dataclass(frozen=True)
class Room:
    """Bytes that are free, before a model is loaded. card: None where there is none."""

    card: int | None
    host: int

    def __str__(self) -> str:
        host = f"{self.host / GIB:.0f} GiB of the machine"
        return host if self.card is None else f"{self.card / GIB:.0f} GiB of the card, {host}"


PINNED = 1.7
"""Of the weights' bytes: what group offload takes of the host, where torch rounds pinned blocks up to powers of two."""


def choose_plans(preset: Preset, window_megapixels: float, room: Room) -> list[ChosenPlan]:
    """The plans to try, in order: the first that should fit, and all that need less; none where the host is too small.

    window_megapixels: of all frames of the window at the working size.
    """
    weights, host = preset.weights_gb * 1e9 / GIB, room.host / GIB
    if preset.text_encoder_gb * 1e9 / GIB > host:
        return []
    if room.card is None:
        # In float32, twice as large as they were saved.
        return [ChosenPlan(Plan.CPU, "there is no card")] if 2 * weights <= host else []
    free = room.card / GIB
    activations = VAE_GIB + ACTIVATION_GIB_PER_MEGAPIXEL * window_megapixels
    # (of the card, of the host): whatever the plan, the weights are read into the host's memory first.
    needs = {
        Plan.CARD: (weights + activations + SPARE_GIB, weights),
        Plan.MODEL_OFFLOAD: (weights / preset.expert_count + activations, weights),
        Plan.GROUP_OFFLOAD: (LEAST_GIB + activations, PINNED * weights),
        Plan.GROUP_OFFLOAD_FP8: (0.0, weights),
    }
    return [
        ChosenPlan(plan, f"needs about {of_card:.0f} GiB of the card's {free:.0f} GiB that are free")
        for plan, (of_card, of_host) in needs.items()
        if of_card <= free and of_host <= host
    ]


def free_host_bytes() -> int:
    """What the machine has left, or its container where that is less (cgroup v1 and v2); cached files give way."""
    free = int(psutil.virtual_memory().available)
    for root, names in CGROUPS.items():
        limit, used, statistics = (Path(root) / name for name in names)
        if limit.exists() and (most := limit.read_text().strip()) != "max":
            values = dict(line.split() for line in statistics.read_text().splitlines())
            cached = int(values["inactive_file"]) + int(values["active_file"])
            free = min(free, int(most) - int(used.read_text()) + cached)
    return free


CGROUPS = {
    "/sys/fs/cgroup": ("memory.max", "memory.current", "memory.stat"),
    "/sys/fs/cgroup/memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"),
}
"""Of the process's own container, by version: limit, what is used, of what that is made."""
