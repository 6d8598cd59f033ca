"""What a phone must be able to do, and how each action is done on one."""

from __future__ import annotations

from typing import Literal, Protocol, assert_never, runtime_checkable

from .. import (
    Action,
    Back,
    CallAPI,
    DoubleTap,
    Finish,
    Home,
    Interact,
    Launch,
    LongPress,
    Note,
    Swipe,
    TakeOver,
    Tap,
    Type,
    TypeName,
    Wait,
    image_size,
)

__all__ = ["Device", "perform"]

_HOLD = 1.5
"""Seconds of a long press: Android takes half a second for one, unless the user has set a longer time."""


@runtime_checkable
class Device(Protocol):
    """A phone, real or drawn; any object with these methods is one. Places are pixels of its screenshot.

    A method that cannot do what it is asked raises: the model is told so, in the words of the exception.
    """

    def screenshot(self) -> bytes:
        """Show the screen as a PNG, JPEG or WebP file."""

    def current_app(self) -> str:
        """Name the app in front, as the model should read it: ``"System Home"`` on the home screen."""

    def tap(self, x: int, y: int, *, times: int = 1, seconds: float = 0.0) -> None:
        """Touch a point: ``times`` in quick succession, each for so many ``seconds``."""

    def swipe(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Drag from one point to another."""

    def type(self, text: str) -> None:
        """Enter text in the field that has the focus, in place of what it holds."""

    def key(self, name: Literal["back", "home"]) -> None:
        """Press one of the two keys."""

    def launch(self, app: str) -> None:
        """Bring an app to the front by its name, as the model writes it."""


def perform(device: Device, action: Action) -> None:
    """Do an action; one that concerns no phone, such as ``Wait``, does nothing here.

    The size of the screen is looked up each time, in a screenshot of the moment: the user may have turned the phone.
    """
    match action:
        case Tap() | DoubleTap() | LongPress() | Swipe():
            _touch(device, action)
        case Type(text) | TypeName(text):
            device.type(text)
        case Back() | Home():
            device.key("back" if isinstance(action, Back) else "home")
        case Launch(app):
            device.launch(app)
        case Wait() | Note() | CallAPI() | Interact() | TakeOver() | Finish():
            return
        case _:
            assert_never(action)


def _touch(device: Device, action: Tap | DoubleTap | LongPress | Swipe) -> None:
    size = image_size(device.screenshot())
    match action:
        case Tap():
            device.tap(*action.at(*size))
        case DoubleTap():
            device.tap(*action.at(*size), times=2)
        case LongPress():
            device.tap(*action.at(*size), seconds=_HOLD)
        case Swipe():
            device.swipe(*action.at(*size))
        case _:
            assert_never(action)
