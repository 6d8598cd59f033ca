"""Drawn screens: buttons where they are said to be, and none over another."""

from __future__ import annotations

import io
from random import Random

import pytest
from PIL import Image

from server_stub.screen import COLORS, Button, draw_screen, place_buttons


def test_a_button_is_drawn_where_it_is() -> None:
    button = Button("red", 10, 20, 30, 40)
    with Image.open(io.BytesIO(draw_screen(100, 200, [button]))) as screen:
        assert screen.size == (100, 200)
        for x, y in ((10, 20), (39, 59)):
            assert screen.getpixel((x, y)) == COLORS["red"]
            assert button.holds(x, y)
        for x, y in ((9, 20), (10, 19), (40, 59), (39, 60)):
            assert screen.getpixel((x, y)) == COLORS["white"]
            assert not button.holds(x, y)


@pytest.mark.parametrize("seed", range(5))
def test_placed_buttons_lie_on_the_screen_and_apart(seed: int) -> None:
    colors = ["red", "green", "blue", "yellow", "orange", "purple"]
    buttons = place_buttons(Random(seed), 180, 320, colors)
    assert [button.color for button in buttons] == colors
    pixels = sum(button.width * button.height for button in buttons)
    with Image.open(io.BytesIO(draw_screen(180, 320, buttons))) as screen:
        assert sum(screen.getpixel((x, y)) != COLORS["white"] for x in range(180) for y in range(320)) == pixels


def test_too_many_find_no_room() -> None:
    with pytest.raises(ValueError, match="no room for a red button"):
        place_buttons(Random(0), 720, 1280, ["red"] * 60)
