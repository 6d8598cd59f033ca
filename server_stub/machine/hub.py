"""The model hub: is a model whole in its cache, can it be reached, is there room for a download."""

from __future__ import annotations

import os
import shlex
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from ..findings import Finding
from ..options import ServeOptions
from .checkpoint import check_folder, problems
from .storage import free_gib, nearest

__all__ = ["cache_folder", "check_hub", "snapshot"]

SECONDS = 3.0
DOWNLOAD_GIB = 20
"""Of AutoGLM-Phone-9B: 19 to 20 GB (zai-org/Open-AutoGLM)."""
TRUE = {"1", "ON", "YES", "TRUE"}


def check_hub(options: ServeOptions) -> Iterator[Finding]:
    """The model by its id: from the cache if it is whole there, else from the hub."""
    cached, weights = snapshot(options.model, options.revision), options.load_format != "dummy"
    lacking = problems(cached, weights=weights) if cached else []
    if cached and (not lacking or _is_offline() or any(problem.file for problem in lacking)):
        # The hub's library fetches what is missing, but takes a file that is there for whole.
        yield from check_folder(cached, _fetch(options), weights=weights)
    elif _is_offline():
        detail = f"{options.model} is not in {cache_folder()}, and HF_HUB_OFFLINE forbids to fetch it"
        yield Finding("weights", "FAIL", detail, f"unset HF_HUB_OFFLINE TRANSFORMERS_OFFLINE; {_fetch(options)}")
    else:
        yield _reach(options, "; ".join(problem.text for problem in lacking))
        yield _check_room(options)


def cache_folder() -> Path:
    """Where the hub's own library keeps what it fetched."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(named or Path(os.environ.get("HF_HOME") or home) / "hub").expanduser()


def snapshot(model: str, revision: str | None) -> Path | None:
    """The folder of a model's revision in the cache, by branch, tag or commit; None if there is none."""
    folder = cache_folder() / f"models--{model.replace('/', '--')}"
    name = revision or "main"
    ref = folder / "refs" / name
    commit = ref.read_text().strip() if ref.is_file() else name
    found = folder / "snapshots" / commit
    return found if found.is_dir() else None


def _fetch(options: ServeOptions) -> str:
    revision = ["--revision", options.revision] if options.revision else []
    return shlex.join(["hf", "download", options.model, *revision])


def _is_offline() -> bool:
    return (os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or "").upper() in TRUE


def _reach(options: ServeOptions, lacking: str) -> Finding:
    """Ask for the head of a small file; ``lacking`` says what the cache lacks."""
    endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    revision = quote(options.revision or "main", safe="")
    answer = _within(SECONDS, f"{endpoint}/{options.model}/resolve/{revision}/config.json")
    cached = f"in the cache: {lacking}" if lacking else f"not in {cache_folder()}"
    if answer == "200":
        return Finding("weights", "ok", f"{endpoint} has {options.model}, the start fetches it ({cached})")
    if answer not in {"401", "403", "404"}:
        detail = f"{endpoint} cannot be reached ({answer}) for {options.model} ({cached})"
        remedy = "--model FOLDER of a checkpoint, export HF_ENDPOINT=MIRROR, or --profile tiny"
        return Finding("weights", "FAIL", detail, remedy)
    if os.environ.get("HF_TOKEN"):
        detail = f"{endpoint} answers {answer} for {options.model} without your token, which was not shown to it here"
        return Finding("weights", "note", detail, f"try: {_fetch(options)}")
    remedy = "--model zai-org/AutoGLM-Phone-9B, or a folder; HF_TOKEN for a private one"
    return Finding("weights", "FAIL", f"{endpoint} has no public {options.model} (it answers {answer})", remedy)


def _within(seconds: float, url: str) -> str:
    """The status as text, or why there is none. A thread, as looking up a name knows no timeout."""
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(_head(url, seconds)), daemon=True)
    asking.start()
    asking.join(seconds)
    return answers[0] if answers else f"no answer in {seconds:.0f} s"


def _head(url: str, seconds: float) -> str:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds) as answer:  # noqa: S310
            return str(answer.status)
    except urllib.error.HTTPError as error:
        return str(error.code)
    except urllib.error.URLError as error:
        return str(error.reason)
    except (OSError, ValueError) as error:
        return str(error)


def _check_room(options: ServeOptions) -> Finding:
    folder = nearest(cache_folder())
    free, have = free_gib(folder), _downloaded(options.model)
    detail = f"{free:.0f} GiB free in {folder}"
    if "AutoGLM-Phone-9B" not in options.model:
        return Finding("disk", "ok", detail)
    needed = max(0.0, DOWNLOAD_GIB - have)
    detail = f"{detail}, {needed:.0f} needed for the download"
    if free < needed:
        return Finding("disk", "FAIL", detail, "export HF_HOME=FOLDER on a larger disk")
    return Finding("disk", "ok", detail)


def _downloaded(model: str) -> float:
    blobs = cache_folder() / f"models--{model.replace('/', '--')}" / "blobs"
    return sum(file.stat().st_size for file in blobs.glob("*") if file.is_file()) / (1 << 30)
