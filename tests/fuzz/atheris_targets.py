"""The promises of the core, for what atheris finds: bytes that reach new branches of this package.

``python -m tests.fuzz.atheris_targets NAME CORPUS [libFuzzer options]``; the corpus folder is filled if it is empty.
What breaks a promise is printed, with the input.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["autoglm_client"]):
    from autoglm_client import AutoGLMError
    from autoglm_client._assembler import Assembler

    from . import promises

from ..wire_samples import DATA, SAMPLES, body_of

MAX_BYTES = 4096


def events(data: bytes) -> None:
    promises.check_events(promises.cut(data[:600], 1, 3, 7))


def stream(data: bytes) -> None:
    promises.check_answer(promises.cut(data, 100, 1, 7), n=1 + len(data) % 2, json=bool(len(data) & 2))


def whole(data: bytes) -> None:
    assembler = Assembler()
    try:
        assembler.feed_whole(data)
        assembler.close()
    except AutoGLMError:
        return
    for choice in assembler.reply().choices:
        promises.check_choice(choice, [event for event in assembler.events if event.choice == choice.index])


def answer(data: bytes) -> None:
    """Zeros cut it into chunks; one that begins with a line end is for the field of the thinking."""
    texts = data.decode(errors="replace").split("\0")
    cuts = [(text.startswith("\n"), text.removeprefix("\n")) for text in texts]
    promises.check_cuts_of_the_server(cuts, "stop")
    promises.check_split(cuts)
    promises.check_split(cuts, json=True)


def action(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    promises.check_action(text)
    promises.check_action(text, "length")
    promises.check_scanner(text, 1, 4, 2)


def picture(data: bytes) -> None:
    promises.check_header(data)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (events, stream, whole, answer, action, picture)
}


def any_of_them(data: bytes) -> None:
    """The first byte says which."""
    list(TARGETS.values())[data[0] % len(TARGETS) if data else 0](data[1:])


def seeds(name: str) -> list[bytes]:
    """What a target begins with."""
    if name == "any":
        return [bytes([number]) + seed for number, each in enumerate(TARGETS) for seed in seeds(each)[:10]]
    if name in {"answer", "action"}:
        outputs = (DATA / "autoglm_outputs.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line)["raw"].encode() for line in outputs]
    if name == "picture":
        from .strategies import PICTURE_PARTS

        return [*PICTURE_PARTS, *(b"".join(PICTURE_PARTS[at : at + 3]) for at in range(len(PICTURE_PARTS)))]
    streamed = name != "whole"
    bodies = [body_of(sample) for sample in SAMPLES if sample.endswith(".stream") == streamed]
    return [body[start:][:MAX_BYTES] for body in bodies for start in (0, max(0, len(body) - 1000))]


def words() -> str:
    """What a mutation may put in, as a dictionary of libFuzzer."""
    from .strategies import CALLS, FIELDS, KEYS, SHARDS

    found = [word.encode("utf-8", "surrogatepass") for word in SHARDS + CALLS] + FIELDS
    found += [f'"{key}":'.encode() for key in KEYS] + [b"null", b"[]", b"{}", b"\r\n", b"\n\n", b"1e999", b"data: {"]
    return "\n".join('"' + "".join(f"\\x{byte:02x}" for byte in word[:64]) + '"' for word in found if word)


def main(name: str, corpus: str, *options: str) -> None:
    folder = Path(corpus)
    if not any(folder.iterdir()):
        for number, seed in enumerate(seeds(name)):
            (folder / f"seed{number}").write_bytes(seed)
    dictionary = folder.parent / f"{name}.dict"
    dictionary.write_text(words())

    def target(data: bytes) -> None:
        try:
            TARGETS.get(name, any_of_them)(data)
        except BaseException:
            print(f"{name} broke its promise on {data!r}", file=sys.stderr, flush=True)
            raise

    limits = [f"-max_len={MAX_BYTES}", "-timeout=20", "-rss_limit_mb=2048", f"-artifact_prefix={folder.parent}/"]
    atheris.Setup([sys.argv[0], str(folder), f"-dict={dictionary}", *limits, *options], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
