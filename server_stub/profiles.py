"""Ways to serve the model that are known to fit a machine: by name, or by the GPUs that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .memory import Memory, estimate
from .options import ServeOptions

__all__ = ["PROFILES", "Memory", "Profile", "estimate", "profile_for"]

TINY_WEIGHTS = Path(__file__).parent / "tiny" / "weights"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Options that belong together, the machine they are for, and where the figures come from."""

    name: str
    summary: str
    gpus: int
    gpu_gib: float
    """What each GPU must have, as its driver reports it: 24 GB cards with error correction say 22.5."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Where the profile leaves the defaults of ``ServeOptions``."""
    source: str
    notes: tuple[str, ...] = ()

    def options(self, **changes: Any) -> ServeOptions:
        """The profile's options, but for these."""
        return ServeOptions(**{**self.changes, **changes})

    def fits(self, gpus_gib: Sequence[float]) -> bool:
        """Whether enough of these GPUs are large enough."""
        return self.gpus > 0 and sum(gib >= self.gpu_gib for gib in gpus_gib) >= self.gpus


_OFFICIAL = "Open-AutoGLM's README: context 25,480, 10 pictures, 5,000,000 pixels; "

_IN_ORDER = (
    Profile(
        name="h200",
        summary="one GPU of 130 GiB or more (H200, B200): many phones at once",
        gpus=1,
        gpu_gib=130,
        changes={"max_sequences": 64, "max_queued": 256},
        source=_OFFICIAL + "64 full sequences are reckoned from the architecture",
    ),
    Profile(
        name="48gb",
        summary="one GPU of 48 to 80 GB (L40S, A6000, A100, H100)",
        gpus=1,
        gpu_gib=44,
        source=_OFFICIAL + '"45 GB for full context" (the publisher, issue 19); an L40S serves it (vLLM 0.14.1, '
        "valyli/autoGLM-sagemaker-deploy)",
        notes=("with 80 GB, max_sequences=32 fits as well",),
    ),
    Profile(
        name="2x24gb",
        summary="two GPUs of 24 GB (RTX 4090, RTX 3090, L4, A10): the model split between them",
        gpus=2,
        gpu_gib=22,
        changes={"tensor_parallel": 2},
        source=_OFFICIAL + "half of the weights per GPU and 16 full sequences are reckoned from the architecture",
        notes=("the model has 2 key-value heads: more than 2 GPUs hold them twice and gain little",),
    ),
    Profile(
        name="1x24gb",
        summary="one GPU of 24 GB (RTX 4090, RTX 3090) with nothing else on it: shorter context, smaller pictures",
        gpus=1,
        gpu_gib=23.5,
        changes={
            "context": 8192,  # 16,364 ran out of memory (Open-AutoGLM, issue 2); 8,192 started (issue 76)
            "max_sequences": 2,
            "images": 4,
            # 500,000 pixels a picture, as two frames: about 630 tokens, the setting of the published scores (MobileRL).
            "max_pixels": 1_000_000,
            "gpu_memory": 0.95,  # the weights alone are 80 % of the card
            "eager": True,  # the memory that CUDA graphs would take goes to the context
        },
        source='"22 GB to start" (the publisher, issue 19); 8,192 tokens started on 24 GB (issue 76)',
        notes=(
            "95 % of the card must be free when it starts: no desktop on it",
            "quantization='fp8' makes the language layers half as large (7.6 GiB less); not tried with this model",
        ),
    ),
    Profile(
        name="tiny",
        summary="no GPU: the tiny test model on vLLM's CPU build",
        gpus=0,
        gpu_gib=0,
        changes={
            "device": "cpu",
            "model": str(TINY_WEIGHTS),
            "context": 4096,
            "max_sequences": 8,
            "kv_cache_gib": 1,
            "dtype": "float32",
            "eager": True,
            "max_pixels": None,
        },
        source="the engine tests of this project run it so, on two cores",
        notes=("a test model: it taps coloured buttons and opens apps, nothing else",),
    ),
)
"""The strongest first: what a machine has room for is the first that fits."""

PROFILES: dict[str, Profile] = {profile.name: profile for profile in _IN_ORDER}


def profile_for(gpus_gib: Sequence[float]) -> Profile | None:
    """The strongest profile for GPUs of these sizes (GiB); None without GPUs, or when none is large enough."""
    return next((profile for profile in _IN_ORDER if profile.fits(gpus_gib)), None)
