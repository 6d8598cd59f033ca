"""What a call of a soak asks, and how it is to end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from autoglm_client import ChatOptions, Messages, first_turn, image
from server_stub.screen import draw_screen, place_buttons

from .servers import CALL

Side = Literal["sync", "async"]
KINDS = {"whole": 16, "break": 4, "error": 3, "cancel": 4, "deadline": 3, "fresh": 3, "nobody": 1, "resume": 4}
"""What a call does, and how often: to its end; left after some events, by ``break`` or by an error of the user's;
cancelled from elsewhere; given too little time; with a client of its own, which may ask where nobody listens; resumed.
"""
KINDS_OF = {"sync": KINDS, "async": {**KINDS, "task cancel": 4}}
ONLY_STREAMS = {"break", "error", "cancel", "resume"}
SAME_EACH_TIME: ChatOptions = {"temperature": 0.0, "max_tokens": 120}
NOBODY = "http://127.0.0.1:1/v1"
LATE_SECONDS = 2.0


def questions() -> list[Messages]:
    """Short and long, and one with a picture."""
    screen = draw_screen(360, 640, place_buttons(Random(7), 360, 640, ["red", "blue"]))
    texts = ["Open Settings", "打开微信", "Who are you?", "Type hello world", "Swipe up", "Think long about it"]
    return [*texts, [first_turn("Tap the red button", image(screen), {"current_app": "Demo"})]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all calls of a soak share."""

    client: dict[str, Any]
    """The arguments of every client."""
    total: float
    """How many seconds a call may take by its clock."""
    questions: list[Messages]


class LeftError(Exception):
    """The user's own error, in the middle of a stream."""


@dataclass(slots=True, kw_only=True)
class Plan:
    """One call: what it asks, and how it is to end."""

    number: int
    side: Side
    kind: str
    question: int
    messages: Messages
    options: dict[str, Any]
    streamed: bool
    seconds: float
    """After these it is over, by its clock or because it was ended."""
    leaves_after: int = 0
    """How many events it reads, if not all."""
    own_client: dict[str, Any] | None = None
    """The arguments of a client of its own."""
    started: float = field(default_factory=time.monotonic)
    attempts: int | None = None

    def leaves(self, events: int) -> bool:
        """Whether this is enough; raises where the user's own error is to end it."""
        if events == self.leaves_after and self.kind == "error":
            raise LeftError
        return events == self.leaves_after


def draw_plan(number: int, side: Side, setup: Setup, chance: Random) -> Plan:
    """Draw a call."""
    kinds = KINDS_OF[side]
    kind = chance.choices([*kinds], [*kinds.values()])[0]
    question = chance.randrange(len(setup.questions))
    plan = Plan(
        number=number,
        side=side,
        kind=kind,
        question=question,
        messages=setup.questions[question],
        options={**SAME_EACH_TIME, "extra_headers": {CALL: str(number)}},
        streamed=kind in ONLY_STREAMS or chance.random() < 0.6,
        seconds=setup.total,
    )
    if kind in {"fresh", "nobody"}:
        plan.own_client = setup.client | ({"base_url": NOBODY} if kind == "nobody" else {})
    _add_end(plan, chance)
    return plan


def _add_end(plan: Plan, chance: Random) -> None:
    if plan.kind in {"break", "error"}:
        plan.leaves_after = chance.randrange(1, 12)
    if plan.kind in {"cancel", "task cancel"}:
        plan.seconds = chance.uniform(0, 1.5)
    if plan.kind == "deadline":
        plan.seconds = chance.uniform(0.02, 0.8)
        plan.options |= chance.choice(({"timeout": plan.seconds}, {"deadline": plan.started + plan.seconds}))
    if plan.kind == "resume":
        plan.options["resume"] = chance.choice(("auto", "always"))
