"""CPU time per chunk, and per ``invoke``: ChatAutoGLM against ChatOpenAI and ChatDeepSeek, in turn, in one run.

``python -m benchmarks.langchain_cpu [--chunks N] [--rounds N]``. Quote the ratios, not the microseconds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

from langchain_core._api import LangChainBetaWarning
from langchain_core.language_models import BaseChatModel
from langchain_deepseek import ChatDeepSeek
from langchain_openai import ChatOpenAI

from autoglm_client.langchain import ChatAutoGLM

from .in_turn import Run, compare, driving, options, server

INVOCATIONS = 100


def models(url: str, version: str = "v0") -> dict[str, BaseChatModel]:
    return {
        "ChatAutoGLM": ChatAutoGLM(base_url=url, output_version=version),
        "ChatOpenAI": ChatOpenAI(base_url=url, api_key="x", model="m", output_version=version),
        "ChatDeepSeek": ChatDeepSeek(api_base=url, api_key="x", model_name="m", output_version=version),
    }


def stream(model: BaseChatModel) -> Run:
    def run() -> None:
        for _ in model.stream("x"):
            pass

    return run


def events(model: BaseChatModel) -> Run:
    def run() -> None:
        for _ in model.stream_events("x", version="v3"):
            pass

    return run


def invoke(model: BaseChatModel) -> Run:
    def run() -> None:
        for _ in range(INVOCATIONS):
            model.invoke("x")

    return run


async def astream(model: BaseChatModel) -> None:
    async for _ in model.astream("x"):
        pass


async def aevents(model: BaseChatModel) -> None:
    async for _ in await model.astream_events("x", version="v3"):
        pass


async def ainvoke(model: BaseChatModel) -> None:
    for _ in range(INVOCATIONS):
        await model.ainvoke("x")


def main() -> None:
    warnings.simplefilter("ignore", LangChainBetaWarning)
    given = options(__doc__)
    with server(given.chunks) as url, driving() as driven:

        def measure(
            name: str, make: Callable[[BaseChatModel], Run], version: str = "v0", per: int = given.chunks
        ) -> None:
            runs = {who: make(model) for who, model in models(url, version).items()}
            compare(name, runs, per=per, rounds=given.rounds)

        measure("stream", stream)
        measure("astream", lambda model: driven(lambda: astream(model)))
        measure("stream v1", stream, "v1")
        measure("v3 events", events)
        measure("v3 async", lambda model: driven(lambda: aevents(model)))
        measure("invoke", invoke, per=INVOCATIONS)
        measure("ainvoke", lambda model: driven(lambda: ainvoke(model)), per=INVOCATIONS)


if __name__ == "__main__":
    main()
