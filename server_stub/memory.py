"""How much memory a server needs, reckoned from the architecture: an estimate to choose by, not a promise."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .options import ServeOptions

__all__ = ["ALLOWANCE", "DEFAULT_SHARE", "Memory", "estimate"]

DEFAULT_SHARE = 0.92
"""Of each GPU's memory: what vLLM 0.32 takes when nothing else is said."""

ALLOWANCE = 2.0
"""GiB per GPU for CUDA, activations and graphs: an assumption. The publisher's "22 GB to start" leaves 1.3 beside the
weights (Open-AutoGLM, issue 19)."""

_GIB = 2**30
_BYTES_PER_WEIGHT = {
    **dict.fromkeys(("fp8", "fp8_per_tensor", "fp8_per_block", "fp8_per_channel", "mxfp8"), 1.0),
    **dict.fromkeys(("int8_per_channel_weight_only", "bnb-8bit"), 1.0),
    **dict.fromkeys(("nvfp4_per_token", "bnb-4bit"), 0.5625),  # 4 bits, and a scale of 8 bits for every 16
}


@dataclass(frozen=True)
class _Architecture:
    layers: int
    kv_heads: int
    head_size: int
    linear: int
    """Weights of the language layers: what quantisation makes smaller."""
    other: int
    """Embeddings and output head."""
    vision: int


AUTOGLM = _Architecture(
    layers=40, kv_heads=2, head_size=128, linear=8_158_765_056, other=1_241_513_984, vision=892_498_432
)
"""GLM-4.1V-9B, which AutoGLM-Phone-9B is: weights counted in the defaults of transformers' ``Glm4vConfig``."""


@dataclass(frozen=True, slots=True)
class Memory:
    """GiB on each GPU; of main memory where there is none."""

    weights: float
    per_sequence: float
    """Key-value cache of one sequence that fills the context."""
    sequences: float
    """The same for all sequences at once; with less the engine still runs, and lets some wait."""
    other: float

    @property
    def total(self) -> float:
        """With this much, all sequences run at once."""
        return self.weights + self.sequences + self.other

    @property
    def least(self) -> float:
        """Below this the engine does not start: one full sequence must fit."""
        return self.weights + self.per_sequence + self.other


def estimate(options: ServeOptions) -> Memory:
    """What these options need on each GPU; a hub id is taken for AutoGLM-Phone-9B, a folder is looked into."""
    folder = options.folder
    config = _text_config(folder) if folder else None
    model = _architecture(config) if config else AUTOGLM
    weights = _on_disk(folder, options) if folder and config else _weights(model, options)
    per_sequence = options.context * _bytes_per_token(model, options) / _GIB
    if options.device == "cpu":  # one pool of a fixed size
        return Memory(weights, per_sequence, float(options.kv_cache_gib), ALLOWANCE)
    return Memory(weights, per_sequence, options.max_sequences * per_sequence, ALLOWANCE)


def _weights(model: _Architecture, options: ServeOptions) -> float:
    size = 4 if options.dtype == "float32" else 2
    linear = model.linear * _BYTES_PER_WEIGHT.get(options.quantization or "", size)
    split = (linear + model.other * size) / (options.tensor_parallel * options.pipeline_parallel)
    return (split + model.vision * size) / _GIB  # every GPU holds the whole picture encoder


def _on_disk(folder: Path, options: ServeOptions) -> float:
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return size / (options.tensor_parallel * options.pipeline_parallel) / _GIB


def _bytes_per_token(model: _Architecture, options: ServeOptions) -> float:
    heads = max(1, model.kv_heads / options.tensor_parallel)  # more GPUs than heads: each head is held twice
    size = 4 if options.dtype == "float32" else 2
    return 2 * model.layers / options.pipeline_parallel * heads * model.head_size * size


def _text_config(folder: Path) -> dict[str, Any] | None:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return None
    return dict(config.get("text_config", config)) if isinstance(config, dict) else None


def _architecture(config: dict[str, Any]) -> _Architecture:
    heads = int(config.get("num_attention_heads", 32))
    return _Architecture(
        layers=int(config.get("num_hidden_layers", AUTOGLM.layers)),
        kv_heads=int(config.get("num_key_value_heads", heads)),
        head_size=int(config.get("head_dim") or config.get("hidden_size", 4096) // heads),
        linear=0,
        other=0,
        vision=0,
    )
