"""What a call asks, put together without any server."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage

from autoglm_client import ConfigurationError
from autoglm_client.langchain.question import Question, Server, ask

STOCK = Server(tools=False, extensions=True)
PARSER = Server(tools=True, extensions=True)
HOSTED = Server(tools=False, extensions=False)
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "properties": {}}}}


def asked(server: Server, **options: Any) -> Question:
    return ask([SystemMessage("Be brief"), HumanMessage("Hi")], options, server=server, reasoning="tags")


def test_a_server_with_a_parser_gets_the_tools() -> None:
    question = asked(PARSER, tools=[ADD], tool_choice="add")
    assert question.options == {
        "tools": [{**ADD, "function": {"strict": True, **ADD["function"]}}],  # type: ignore[dict-item]
        "tool_choice": {"type": "function", "function": {"name": "add"}},
    }
    assert question.messages[0] == {"role": "system", "content": "Be brief"}


def test_a_stock_server_gets_them_as_text_and_a_grammar() -> None:
    question = asked(STOCK, tools=[ADD], parallel_tool_calls=False)
    assert question.options.keys() == {"response_format"}
    assert question.options["response_format"]["type"] == "structural_tag"
    assert str(question.messages[0].get("content")).startswith("Be brief\n\n# Tools")


def test_a_hosted_server_gets_the_text_alone() -> None:
    question = asked(HOSTED, tools=[ADD])
    assert question.options == {}
    assert "# Tools" in str(question.messages[0].get("content"))


def test_tools_that_must_not_be_called_are_not_told() -> None:
    question = asked(STOCK, tools=[ADD], tool_choice="none")
    assert question.options == {}
    assert question.messages[0].get("content") == "Be brief"


def test_tools_with_a_form_of_the_answer_leave_both_ways_open() -> None:
    """A server with a parser would hold the answer to the form from its first token, and call nothing."""
    for server in (STOCK, PARSER):
        question = asked(server, tools=[ADD], response_format=SCHEMA)
        assert question.options.keys() == {"response_format"}
        assert question.options["response_format"]["type"] == "structural_tag"
        assert "as a JSON object of this schema" in str(question.messages[0].get("content"))


def test_instructions_without_a_system_message() -> None:
    question = ask([HumanMessage("Hi")], {"tools": [ADD]}, server=STOCK, reasoning="tags")
    assert [message["role"] for message in question.messages] == ["system", "user"]


def test_no_messages() -> None:
    with pytest.raises(ConfigurationError, match="there are no messages"):
        ask([], {"tools": [ADD]}, server=STOCK, reasoning="tags")


def test_constraints_by_name_join_the_others() -> None:
    question = asked(STOCK, regex="a+", structured_outputs={"whitespace_pattern": " "})
    assert question.options == {"structured_outputs": {"whitespace_pattern": " ", "regex": "a+"}}
    assert asked(STOCK, grammar="root ::= x").options == {"structured_outputs": {"grammar": "root ::= x"}}


def test_what_is_langchains_is_not_sent() -> None:
    assert asked(STOCK, stream=True, strict=True, ls_structured_output_format={}, seed=None).options == {}
