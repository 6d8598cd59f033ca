"""Answers in a given form: an object of a schema, one of several words, a text that a pattern allows.

Run it against your server (AUTOGLM_BASE_URL), or against ``python -m server_stub --scripted``.
"""

from typing import Literal

from pydantic import BaseModel

from autoglm_client.langchain import ChatAutoGLM


class Flight(BaseModel):
    """A flight that somebody asks for."""

    city: str
    passengers: int
    cabin: Literal["economy", "business"]


def main() -> None:
    model = ChatAutoGLM(temperature=0)
    print(model.with_structured_output(Flight).invoke('2 seats to "Lisbon"'))
    print(model.invoke("Is Lisbon by the sea?", choice=["yes", "no"]).text)
    print(model.bind(regex="[0-9]{2}:[0-9]{2}").invoke("When does it leave?").text)


if __name__ == "__main__":
    main()
