"""What LangChain's models keep of vLLM's own answers is what the documentation says of them."""

from __future__ import annotations

import pytest

from autoglm_client import AutoGLM

from ..langchain.kept import FEATURES, PEERS, QUESTION, Feature, Place, documented, measured
from .engine import Engine


@pytest.fixture
def places(plain: Engine, parser: Engine, glm: AutoGLM, glm_parser: AutoGLM) -> dict[str, Place]:
    return {"plain": place(plain, glm), "parser": place(parser, glm_parser, parser=True)}


def place(engine: Engine, glm: AutoGLM, *, parser: bool = False) -> Place:
    """The engine and what it says, by our client, whose other tests hold it against the bytes."""
    reply = glm.chat(QUESTION)
    assert reply.reasoning
    assert reply.text
    return Place(engine.base_url, reply.reasoning.strip(), reply.text.strip(), parser=parser, api_key=engine.api_key)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("feature", [it for it in FEATURES if it.engine], ids=lambda it: it.title)
def test_the_same_on_vllm(feature: Feature, peer: str, places: dict[str, Place]) -> None:
    cells = next(cells for cells in documented() if cells[0] == feature.title)
    expected = feature.on_engine.get(peer, cells[1 + list(PEERS).index(peer)])
    assert measured(feature, peer, places[feature.engine]) == expected
