"""An agent with tools, on any AutoGLM server: it needs neither a tool parser nor a chat template that knows tools.

Run it against your server (AUTOGLM_BASE_URL), or against ``python -m server_stub --scripted``.
"""

from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool

from autoglm_client.langchain import ChatAutoGLM


@tool
def count_letters(word: str) -> int:
    """Count the letters of a word."""
    return len(word)


def main() -> None:
    agent: Any = create_agent(ChatAutoGLM(), [count_letters])
    question = HumanMessage('How many letters has "strawberry"?')
    kind = ""
    for piece, _ in agent.stream({"messages": [question]}, stream_mode="messages"):
        for block in piece.content_blocks:
            if block["type"] != kind:
                kind = block["type"]
                print(f"\n{kind}: ", end="")
            print(block.get("reasoning") or block.get("text") or block.get("name"), end="", flush=True)
    print()


if __name__ == "__main__":
    main()
