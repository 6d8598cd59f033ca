"""Async: several questions at once, each watched while it is answered."""

import asyncio

from autoglm_client import ActionReady, AsyncAutoGLM


async def watch(glm: AsyncAutoGLM, question: str) -> None:
    async with glm.stream(question) as stream:
        async for event in stream:
            if isinstance(event, ActionReady):
                print(f"{question}: {event.action}")


async def main() -> None:
    async with AsyncAutoGLM() as glm, asyncio.TaskGroup() as group:
        for app in ("Settings", "Maps", "Camera"):
            group.create_task(watch(glm, f"Open {app}"))


if __name__ == "__main__":
    asyncio.run(main())
