"""A phone agent as a LangGraph graph: it taps a drawn phone, remembers, and asks you before it matters.

For a real phone, write a class with the methods of ``autoglm_client.langchain.Device`` over adb.
Run it against your server (AUTOGLM_BASE_URL), or against ``python -m server_stub --scripted``.
"""

from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AnyMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from autoglm_client import system_prompt
from autoglm_client.langchain import ChatAutoGLM, first_message, phone_tools
from server_stub.phone import DrawnPhone
from server_stub.screen import Button

THREAD: Any = {"configurable": {"thread_id": "my phone"}}


def answer(question: dict[str, Any]) -> object:
    """What the user says: a program has a dialog here."""
    print(f"the agent asks ({question['kind']}): {question['message']}")
    return True


def main() -> None:
    phone = DrawnPhone(buttons=[Button("red", 60, 160, 240, 120)])
    agent: Any = create_agent(
        ChatAutoGLM(),
        phone_tools(phone, settle=0),
        system_prompt=system_prompt("en"),
        checkpointer=InMemorySaver(),  # what LangGraph goes on from, and where it keeps the thread
    )
    for task in ("Tap the red button", "Log in"):
        state = agent.invoke({"messages": [first_message(phone, task)]}, THREAD)
        while questions := state.get("__interrupt__"):
            state = agent.invoke(Command(resume=answer(questions[0].value)), THREAD)
        told: AnyMessage = state["messages"][-1]
        print(f"{task}: {told.text}")
    print(phone.actions)


if __name__ == "__main__":
    main()
