"""What goes to and comes from an OpenAI-compatible `chat/completions` address, as values.

Understood by OpenAI, Ollama, vLLM, llama.cpp, LM Studio and others.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

SYSTEM = (
    "You are a helpful, brief assistant with a memory. Use search_memory when the user asks about something "
    "they may have told you before, in this or an earlier conversation. Use calculate for arithmetic and "
    "current_time for the time. Say so when you do not know."
)


def _tool(name: str, does: str, argument: str, meaning: str) -> dict[str, Any]:
    properties = {argument: {"type": "string", "description": meaning}}
    parameters = {"type": "object", "properties": properties, "required": [argument]}
    return {"type": "function", "function": {"name": name, "description": does, "parameters": parameters}}


TOOLS = [
    _tool("search_memory", "Find what the user said before.", "query", "words to look for"),
    _tool("calculate", "Evaluate arithmetic.", "expression", "such as 3 * (4 + 5) or sqrt(2)"),
    _tool("current_time", "Tell the date and time.", "place", "a time zone or its city, or UTC"),
]
# tool of the wire → (tool of ours, its argument there)
OURS = {
    "search_memory": ("recall", "query"),
    "calculate": ("calculate", "expression"),
    "current_time": ("time", "place"),
}


class ToolCall(NamedTuple):
    id: str
    name: str
    arguments: str  # JSON, written by the model: may be anything

    def ours(self) -> tuple[str, str]:
        """Our tool and its argument. ValueError, with a text for the model, when the call makes no sense."""
        if self.name not in OURS:
            raise ValueError(f"there is no tool {self.name}")
        tool, key = OURS[self.name]
        try:
            value = json.loads(self.arguments or "{}").get(key, "")
        except (ValueError, AttributeError):
            raise ValueError(f"the arguments must be a JSON object with {key}") from None
        return tool, str(value)


def request(model: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": messages, "tools": TOOLS, "stream": True}
    if model:
        body["model"] = model
    return body


def opening(history: list[tuple[str, str]], message: str) -> list[dict[str, Any]]:
    """The conversation so far, (role, content) each, as the wire has it."""
    said = [{"role": role, "content": content} for role, content in history]
    return [{"role": "system", "content": SYSTEM}, *said, {"role": "user", "content": message}]


class Gathering:
    """Puts together what a streamed answer brings: text at once, tool calls piece by piece."""

    def __init__(self) -> None:
        self.text = ""
        self._calls: dict[int, list[str]] = {}

    def take(self, data: str) -> str:
        """Take one event's data; the text it adds. ValueError when the model's server reports an error."""
        if data == "[DONE]" or not data:
            return ""
        piece = json.loads(data)
        if "error" in piece:
            error = piece["error"]
            raise ValueError(error.get("message", str(error)) if isinstance(error, dict) else str(error))
        added = ""
        for choice in piece.get("choices") or ():
            delta = choice.get("delta") or {}
            added += delta.get("content") or ""
            for call in delta.get("tool_calls") or ():
                self._add(call)
        self.text += added
        return added

    def _add(self, call: dict[str, Any]) -> None:
        identity, name, arguments = self._calls.setdefault(call.get("index", 0), ["", "", ""])
        function = call.get("function") or {}
        self._calls[call.get("index", 0)] = [
            identity or call.get("id") or "",
            name or function.get("name") or "",
            arguments + (function.get("arguments") or ""),
        ]

    def calls(self) -> list[ToolCall]:
        return [ToolCall(*self._calls[i]) for i in sorted(self._calls)]


def answered(gathering: Gathering, results: list[str]) -> list[dict[str, Any]]:
    """The messages to add after tools ran, one result per call, in order."""
    calls = gathering.calls()
    asked = [
        {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments or "{}"}} for c in calls
    ]
    told = [{"role": "tool", "tool_call_id": c.id, "content": result} for c, result in zip(calls, results, strict=True)]
    return [{"role": "assistant", "content": gathering.text or None, "tool_calls": asked}, *told]
