"""Watch it think: the thinking and the answer come as different blocks of the same stream.

Run it against your server (AUTOGLM_BASE_URL), or against ``python -m server_stub --scripted``.
"""

from langchain_core.messages import AIMessageChunk

from autoglm_client.langchain import ChatAutoGLM


def main() -> None:
    whole = AIMessageChunk(content="")
    for chunk in ChatAutoGLM().stream("Open Settings"):
        for block in chunk.content_blocks:
            if block["type"] == "reasoning":
                print(block["reasoning"], end="", flush=True)
            elif block["type"] == "text":
                print(f"\n> {block['text']}" if not whole.text else block["text"], end="", flush=True)
        whole += chunk
    print(f"\n{whole.usage_metadata['output_tokens'] if whole.usage_metadata else 'unknown'} tokens")


if __name__ == "__main__":
    main()
