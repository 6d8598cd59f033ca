"""One step of a phone agent: a screenshot and a task go out, the thinking streams in, an action comes out.

``python examples/phone_step.py screen.png "Tap the green button"``
"""

import sys

from autoglm_client import (
    SAMPLING,
    ActionReady,
    AutoGLM,
    ReasoningDelta,
    Tap,
    first_turn,
    image,
    image_size,
    system,
    system_prompt,
)


def main(screenshot: str, task: str) -> None:
    messages = [system(system_prompt("en")), first_turn(task, image(screenshot), {"current_app": "System Home"})]
    with AutoGLM() as glm, glm.stream(messages, **SAMPLING) as stream:
        for event in stream:
            match event:
                case ReasoningDelta(text):
                    print(text, end="", flush=True)
                case ActionReady(Tap() as tap):
                    print(f"\nadb shell input tap {' '.join(map(str, tap.at(*image_size(screenshot))))}")
                case ActionReady(action):
                    print(f"\n{action}")


if __name__ == "__main__":
    main(*sys.argv[1:])
