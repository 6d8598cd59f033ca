"""Before and after: the snippet of many articles, which loses the thinking without a word, and what keeps it.

Run it against your server (AUTOGLM_BASE_URL), or against ``python -m server_stub --scripted``.
"""

import os

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from autoglm_client.langchain import ChatAutoGLM

BASE_URL = os.environ.get("AUTOGLM_BASE_URL", "http://127.0.0.1:8000/v1")


def main() -> None:
    before = ChatOpenAI(
        model="autoglm-phone-9b",
        base_url=BASE_URL,
        api_key=SecretStr("none"),
        extra_body={"enable_thinking": True, "return_reasoning": True},  # no server of this model knows these two
    )
    after = ChatAutoGLM(base_url=BASE_URL)
    for name, model in {"before": before, "after": after}.items():
        message = model.invoke("Open Settings")
        thinking = [block["reasoning"] for block in message.content_blocks if block["type"] == "reasoning"]
        print(f"{name}: thinking {thinking}, answer {message.text!r}")


if __name__ == "__main__":
    main()
