"""Which profile a machine gets, and how much memory each is reckoned to need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server_stub.memory import DEFAULT_SHARE, estimate
from server_stub.options import ServeOptions
from server_stub.profiles import PROFILES, profile_for

SERVING = (Path(__file__).parent.parent / "docs" / "serving.md").read_text()


@pytest.mark.parametrize(
    ("gpus", "name"),
    [
        ([], None),
        ([8.0], None),
        ([16.0, 16.0], None),
        ([23.99], "1x24gb"),
        ([22.5], None),
        ([22.5, 22.5], "2x24gb"),
        ([23.99, 23.99], "2x24gb"),
        ([23.99, 8.0], "1x24gb"),
        ([44.99], "48gb"),
        ([79.6], "48gb"),
        ([23.99, 44.99], "48gb"),
        ([140.4], "h200"),
    ],
)
def test_the_profile_for_a_machine(gpus: list[float], name: str | None) -> None:
    found = profile_for(gpus)
    assert (found and found.name) == name


@pytest.mark.parametrize("name", [name for name, profile in PROFILES.items() if profile.gpus])
def test_a_profile_fits_its_smallest_machine(name: str) -> None:
    profile = PROFILES[name]
    options = profile.options()
    assert estimate(options).total <= profile.gpu_gib * (options.gpu_memory or DEFAULT_SHARE)
    assert options.gpus == profile.gpus


def test_memory_of_the_whole_model() -> None:
    needs = estimate(ServeOptions(max_sequences=4))
    assert needs.weights == pytest.approx(19.17, abs=0.01)  # 10,292,777,472 weights of two bytes
    assert needs.per_sequence == 25480 * 40 / 1024**2  # 40 KiB a token
    assert (needs.sequences, needs.least) == (4 * needs.per_sequence, needs.weights + needs.per_sequence + needs.other)


@pytest.mark.parametrize(
    ("changes", "share"),
    [({"tensor_parallel": 2}, 1 / 2), ({"tensor_parallel": 4}, 1 / 2), ({"pipeline_parallel": 4}, 1 / 4)],
)
def test_key_value_heads_are_shared_no_further_than_there_are_two(changes: dict[str, Any], share: float) -> None:
    assert estimate(ServeOptions(**changes)).per_sequence == share * estimate(ServeOptions()).per_sequence


def test_quantisation_makes_the_language_layers_smaller_alone() -> None:
    saved = estimate(ServeOptions()).weights - estimate(ServeOptions(quantization="fp8")).weights
    assert saved == 8_158_765_056 / 2**30


def test_memory_of_a_folder_is_what_lies_in_it(tmp_path: Path) -> None:
    text = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 128}
    (tmp_path / "config.json").write_text(json.dumps({"text_config": text}))
    for shard in ("a", "b"):
        (tmp_path / f"{shard}.safetensors").write_bytes(bytes(2**20))
    options = ServeOptions(model=str(tmp_path), device="cpu", dtype="float32", context=1024, kv_cache_gib=3)
    needs = estimate(options)
    assert needs.weights == 2 / 1024
    assert needs.per_sequence == 2 * 4 * 2 * 32 * 4 * 1024 / 2**30
    assert needs.sequences == 3


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_says_what_it_is_and_where_its_figures_come_from(name: str) -> None:
    profile = PROFILES[name]
    assert profile.summary
    assert profile.source
    assert profile.options(port=9000).port == 9000


@pytest.mark.parametrize("name", [name for name, profile in PROFILES.items() if profile.gpus])
def test_the_documents_show_what_the_profile_needs(name: str) -> None:
    profile = PROFILES[name]
    options, needs = profile.options(), estimate(profile.options())
    row = (
        f"| `{name}` | {profile.gpus} of {profile.gpu_gib} | {options.context:,} | {options.max_sequences} "
        f"| {needs.weights:.1f} | {needs.per_sequence:.2f} | {needs.least:.1f} | {needs.total:.1f} |"
    )
    assert row in SERVING.splitlines()
