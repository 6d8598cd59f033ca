"""How often the tiny model taps the button it is told to: ``python -m benchmarks.tiny_taps [BASE_URL]``.

Screens are drawn afresh, in the sizes of real phones, with one to six buttons; the tap counts when its pixel lies on
the button of the named colour.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import chain
from random import Random

from autoglm_client import AsyncAutoGLM, Tap, first_turn, image
from server_stub.screen import COLORS, Button, draw_screen, place_buttons

SIZES = ((720, 1280), (720, 1600), (1080, 1920), (1080, 2160), (1080, 2340), (1080, 2400), (1440, 2560), (1440, 3200))
NAMES = tuple(color for color in COLORS if color not in {"white", "black"})
SCREENS = 200


async def taps_inside(
    glm: AsyncAutoGLM, buttons: int, *, screens: int = SCREENS, seed: int = 0
) -> dict[tuple[int, int], list[bool]]:
    """Whether each tap was inside, by size of screen."""
    random, at_once = Random(f"{seed} {buttons}"), asyncio.Semaphore(8)

    async def one(size: tuple[int, int], placed: list[Button]) -> bool:
        target = placed[0]
        async with at_once:
            screen = image(await asyncio.to_thread(draw_screen, *size, placed[::-1]), max_pixels=5_000_000)
            reply = await glm.chat(
                [first_turn(f"Tap the {target.color} button", screen, {"current_app": "Demo"})], temperature=0
            )
        return isinstance(reply.action, Tap) and target.holds(*reply.action.at(*size))

    sizes = [SIZES[number % len(SIZES)] for number in range(screens)]
    drawn = [(size, place_buttons(random, *size, random.sample(NAMES, buttons))) for size in sizes]
    results = await asyncio.gather(*(one(size, placed) for size, placed in drawn))
    return {size: [inside for at, inside in zip(sizes, results, strict=True) if at == size] for size in SIZES}


async def main() -> None:
    async with AsyncAutoGLM(sys.argv[1] if len(sys.argv) > 1 else None, timeout=300) as glm:
        print("buttons  inside  " + "".join(f"{width}x{height}".rjust(11) for width, height in SIZES))
        for buttons in range(1, len(NAMES) + 1):
            by_size = await taps_inside(glm, buttons)
            every = [*chain.from_iterable(by_size.values())]
            shares = "".join(f"{sum(taps) / len(taps):11.0%}" for taps in by_size.values())
            print(f"{buttons:7}  {sum(every) / len(every):6.1%}  {shares}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
