"""Requests and answers recorded from a real vLLM 0.32, with a tiny model of the real architecture.

``plain.*``: no parser on the server; ``parser.*``: with its parsers; ``*.stream``: the same request, streamed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"

SAMPLES: dict[str, dict[str, Any]] = {
    sample["name"]: sample for sample in map(json.loads, (DATA / "vllm_wire.jsonl").read_text().splitlines())
}
COMPLETIONS = [name for name, sample in SAMPLES.items() if sample["status"] == 200 and f"{name}.stream" in SAMPLES]
STREAMS = [f"{name}.stream" for name in COMPLETIONS]


def body_of(name: str) -> bytes:
    """The bytes of an answer."""
    body: str = SAMPLES[name]["body"]
    return body.encode("utf-8", "surrogateescape")
