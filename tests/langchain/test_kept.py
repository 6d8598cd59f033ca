"""The table of what is kept, in the documentation, is what the probes find."""

from __future__ import annotations

import re

import pytest

from .kept import FEATURES, PEERS, Feature, documented, measured, row


@pytest.mark.parametrize("feature", FEATURES, ids=lambda it: it.title)
def test_the_documentation_says_what_is_kept(feature: Feature) -> None:
    assert row(feature) in documented()


def test_the_documentation_says_nothing_else() -> None:
    assert [cells[0] for cells in documented()] == [feature.title for feature in FEATURES]


def test_what_ours_keeps() -> None:
    ours = {cells[0]: cells[1 + list(PEERS).index("ChatAutoGLM")] for cells in documented()}
    assert {title: cell for title, cell in ours.items() if cell != "kept"} == {
        "`dumps` and `loads`": 'partly: with `valid_namespaces=["autoglm_client"]`',
        '`init_chat_model("provider:model")`': "partly: after `register()`",
    }


def test_the_cells_can_be_told_from_one_another() -> None:
    cells = {cell for cells in documented() for cell in cells[1:4]}
    assert all(re.fullmatch(r"kept|lost|partly: .+", cell) for cell in cells)
    assert measured(FEATURES[0], "ChatOpenAI") != measured(FEATURES[0], "ChatAutoGLM")
