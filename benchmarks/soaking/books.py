"""What client, proxy and server each write down of a call, and whether it agrees."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from .faults import INSTEAD

CLIENT, PROXY, SERVER = "client.csv", "proxy.csv", "server.csv"
CHOSEN = {"left by break", "left by an error", "error: cancelled", "task cancelled"}
HARD_TO_COUNT = {*CHOSEN, "error: deadline"}
"""These may end a call between its decision to send and the sending."""


class Ended(NamedTuple):
    """A call, as the client saw it."""

    call: str
    side: str
    kind: str
    end: str
    attempts: str
    """Nothing where nobody can say: a plain call that its task left."""
    seconds: str


class Passed(NamedTuple):
    """A request, as the proxy saw it, and the fault drawn for it; without a name, a connection that was ended."""

    call: str
    attempt: str
    fault: str


@dataclass(slots=True)
class Books:
    """The three logs, read."""

    client: list[Ended]
    proxy: list[Passed]
    server: list[str]
    """The names of the attempts."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what was written."""
        return cls(
            [Ended(*row) for row in _rows(folder / CLIENT)],
            [Passed(*row) for row in _rows(folder / PROXY)],
            [row[0] for row in _rows(folder / SERVER)],
        )

    @property
    def requests(self) -> list[Passed]:
        """What the proxy saw, but for the connections on which it read nothing."""
        return [it for it in self.proxy if it.call]


def _rows(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.reader(file))


def reconcile(books: Books) -> Iterator[str]:
    """Say what does not agree between what the client did and what the others saw."""
    for who, names in (("proxy", [it.attempt for it in books.requests]), ("server", books.server)):
        yield from (f"{who} saw {it} {often} times" for it, often in Counter(names).items() if often > 1)
    yield from _lost_behind_the_proxy(books)
    yield from _attempts_that_disagree(books)


def _lost_behind_the_proxy(books: Books) -> Iterator[str]:
    passed_on = {it.attempt: it.call for it in books.requests if it.fault not in INSTEAD}
    ends = {it.call: it.end for it in books.client}
    yield from (f"the server saw {it}, which was not passed on" for it in {*books.server} - passed_on.keys())
    for it in (passed_on.keys() - {*books.server}) if books.server else ():
        if (end := ends.get(passed_on[it])) not in HARD_TO_COUNT:
            yield f"{it} was passed on, the server did not see it, and the call ended in {end!r}"


def _attempts_that_disagree(books: Books) -> Iterator[str]:
    seen = defaultdict[str, list[str]](list)
    for it in books.requests:
        seen[it.call].append(it.attempt)
    unseen = 0
    for call, _, kind, end, said, _ in books.client:
        names = seen.pop(call, [])
        if len({it.rpartition("-")[0] for it in names}) > 1:
            yield f"call {call} has several names: {names}"
        if said and any(int(it.rpartition("-")[2]) > int(said) for it in names):
            yield f"call {call} ({kind}, {end}) says {said} attempts, seen were {names}"
        if said and kind != "nobody" and end not in HARD_TO_COUNT:
            unseen += int(said) - len(names)
    yield from (f"nobody made call {call}: {names}" for call, names in seen.items())
    ended = len(books.proxy) - len(books.requests)
    if unseen > ended:
        yield f"{unseen} attempts were not seen, though the proxy ended only {ended} connections"
