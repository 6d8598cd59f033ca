"""A chain: a prompt, the model, and a parser that gives a phone action instead of text.

Run it against your server (AUTOGLM_BASE_URL), or against ``python -m server_stub --scripted``.
"""

from langchain_core.prompts import ChatPromptTemplate

from autoglm_client import Launch
from autoglm_client.langchain import ActionOutputParser, ChatAutoGLM

PROMPT = ChatPromptTemplate.from_messages([("system", "{how}"), ("human", "Open {app}")])


def main() -> None:
    parser = ActionOutputParser()
    chain = PROMPT.partial(how=parser.get_format_instructions()) | ChatAutoGLM(temperature=0) | parser
    for action in chain.batch([{"app": "Settings"}, {"app": "Maps"}]):
        match action:
            case Launch(app):
                print(f"launch {app}")
            case _:
                print(action)


if __name__ == "__main__":
    main()
