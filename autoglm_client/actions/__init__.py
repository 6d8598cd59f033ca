"""The phone action in an answer: ``parse_action(text)`` reads it, ``str(action)`` writes it.

From the bottom up: ``vocabulary`` has the actions, ``quotes`` finds where a text ends whose quotes are not escaped,
``grammar`` reads a call, ``meaning`` makes an action of it, ``search`` finds the call that counts, ``scanner`` tells it
while the answer still grows, ``reading`` is the front door.
"""

from .reading import ActionCall, parse_action, read_action
from .scanner import ActionScanner
from .vocabulary import (
    Action,
    Back,
    CallAPI,
    Direction,
    Distance,
    DoubleTap,
    Finish,
    Home,
    Interact,
    Launch,
    LongPress,
    Note,
    Point,
    Swipe,
    TakeOver,
    Tap,
    Type,
    TypeName,
    Wait,
)

__all__ = [
    "Action",
    "ActionCall",
    "ActionScanner",
    "Back",
    "CallAPI",
    "Direction",
    "Distance",
    "DoubleTap",
    "Finish",
    "Home",
    "Interact",
    "Launch",
    "LongPress",
    "Note",
    "Point",
    "Swipe",
    "TakeOver",
    "Tap",
    "Type",
    "TypeName",
    "Wait",
    "parse_action",
    "read_action",
]
