"""Phone actions as tool calls and back: ``do(action="Long Press", element=[1, 2])``, ``long_press(element=[1, 2])``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, get_args

from .. import Action, Finish, parse_action

__all__ = ["ACTION_TOOLS", "action_of", "arguments_of", "tool_name"]


def tool_name(kind: type[Action]) -> str:
    """The name of an action's tool: ``TakeOver`` is ``take_over``, ``CallAPI`` is ``call_api``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()


ACTION_TOOLS: dict[str, type[Action]] = {tool_name(kind): kind for kind in get_args(Action) if kind is not Finish}
"""Every action but ``finish``, which ends a task and so calls nothing, by the name of its tool."""


def arguments_of(action: Action) -> dict[str, Any]:
    """The arguments of the tool call: the action's parameters as the model writes them, points as ``[x, y]``."""
    return action.params()


def action_of(name: str, arguments: Mapping[str, Any]) -> Action:
    """The action that a tool call means; raises :class:`~autoglm_client.ActionError` for one that is none."""
    kind = ACTION_TOOLS[name]
    written = ", ".join(f"{key}={_literal(value)}" for key, value in arguments.items())
    return parse_action(f"do(action={_literal(kind.name)}{', ' if written else ''}{written})")


def _literal(value: object) -> str:
    return json.dumps(value).replace("<", "\\u003c")  # or a text with "</answer>" in it would end the answer
