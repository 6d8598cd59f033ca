"""Requests and answers recorded from real servers, with a tiny model of the real architecture.

vLLM 0.32: ``plain.*``: no parser on the server; ``parser.*``: with its parsers; ``*.stream``: the same, streamed.
Ray Serve LLM 2.60 on vLLM 0.29, two replicas: ``killed``: what a client saw whose replica was killed; ``dead engine``:
whose replica had lost its engine and went on. There, the middle of a long stream and the machine's folders are cut out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"

Sample = dict[str, Any]


def _read(file: str) -> dict[str, Sample]:
    return {sample["name"]: sample for sample in map(json.loads, (DATA / file).read_text().splitlines())}


SAMPLES = _read("vllm_wire.jsonl")
RAY_SAMPLES = _read("ray_wire.jsonl")
COMPLETIONS = [name for name, sample in SAMPLES.items() if sample["status"] == 200 and f"{name}.stream" in SAMPLES]
STREAMS = [f"{name}.stream" for name in COMPLETIONS]


def body_of(name: str, samples: dict[str, Sample] = SAMPLES) -> bytes:
    """The bytes of an answer."""
    body: str = samples[name]["body"]
    return body.encode("utf-8", "surrogateescape")
