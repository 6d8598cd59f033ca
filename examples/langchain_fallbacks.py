"""When a server fails: another one takes over, and errors are LangChain's, so its retries know which may pass.

Run it against your server (AUTOGLM_BASE_URL), or against ``python -m server_stub --scripted``.
"""

from langchain_core.exceptions import ModelConnectionError

from autoglm_client import AutoGLMError
from autoglm_client.langchain import ChatAutoGLM


def main() -> None:
    gone = ChatAutoGLM(base_url="http://127.0.0.1:9/v1", max_retries=0)
    try:
        gone.invoke("Open Settings")
    except ModelConnectionError as error:  # also an AutoGLMError
        print(f"{isinstance(error, AutoGLMError)}, may pass: {error.is_retryable}")
    model = gone.with_fallbacks([ChatAutoGLM()], exceptions_to_handle=(AutoGLMError,))
    print(model.invoke("Open Settings").text)


if __name__ == "__main__":
    main()
