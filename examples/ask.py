"""Ask in words, and get words, a typed object, or many answers at once.

Run it against your server (AUTOGLM_BASE_URL), or against ``python -m server_stub --scripted``.
"""

from pydantic import BaseModel

from autoglm_client import AutoGLM, AutoGLMError


class Weather(BaseModel):
    """What ``parse`` gives back."""

    city: str
    degrees: int


def main() -> None:
    with AutoGLM() as glm:
        print(glm.chat("Who are you?"))
        print(glm.parse("What is the weather in Paris?", Weather))
        for answer in glm.map(["Open Settings", "Open Maps", "Go back"], concurrency=2):
            print(f"failed: {answer}" if isinstance(answer, AutoGLMError) else answer.action)


if __name__ == "__main__":
    main()
