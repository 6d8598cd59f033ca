"""A phone that is only drawn: what to drive where there is no phone. It shows buttons, and remembers what was done."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from .screen import Button, draw_screen

__all__ = ["HOME", "DrawnPhone"]

HOME = "System Home"
"""The name of the home screen, as the model was taught it."""


class DrawnPhone:
    """A screen of coloured buttons; a button that is tapped is gone.

    What it is asked to do stands in ``actions``, one tuple each: the method's name and its arguments. A place that is
    not on the screen is a ValueError, an app that is not among its ``apps`` a LookupError.
    """

    def __init__(
        self,
        width: int = 720,
        height: int = 1280,
        buttons: Iterable[Button] = (),
        apps: Collection[str] | None = None,
    ) -> None:
        self.width = width
        self.height = height
        self.buttons = list(buttons)
        self.apps = apps
        """The apps that there are; any, if ``None``."""
        self.app = HOME
        self.actions: list[tuple[object, ...]] = []

    def screenshot(self) -> bytes:
        """Draw the screen as a PNG file."""
        return draw_screen(self.width, self.height, self.buttons)

    def current_app(self) -> str:
        """Name the app in front."""
        return self.app

    def tap(self, x: int, y: int, *, times: int = 1, seconds: float = 0.0) -> None:
        """Touch a pixel; the button there, the top one if there are two, is gone."""
        self._check(x, y)
        self.actions.append(("tap", x, y, times, seconds))
        touched = [button for button in self.buttons if button.holds(x, y)]
        if touched:
            self.buttons.remove(touched[-1])

    def swipe(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Drag, which moves nothing."""
        self._check(*start)
        self._check(*end)
        self.actions.append(("swipe", start, end))

    def type(self, text: str) -> None:
        """Type, which shows nothing."""
        self.actions.append(("type", text))

    def key(self, name: str) -> None:
        """Press a key; ``"home"`` leaves the app."""
        self.actions.append(("key", name))
        self.app = HOME if name == "home" else self.app

    def launch(self, app: str) -> None:
        """Bring an app to the front."""
        if self.apps is not None and app not in self.apps:
            raise LookupError(f"there is no app named {app!r}")
        self.actions.append(("launch", app))
        self.app = app

    def _check(self, x: int, y: int) -> None:
        if not (0 <= x < self.width and 0 <= y < self.height):
            raise ValueError(f"({x}, {y}) is not on a screen of {self.width} by {self.height} pixels")
