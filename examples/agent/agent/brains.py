"""Who answers: the built-in rules, or a language model at an OpenAI-compatible address. Both use the same tools."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import httpx

from agent import calculator, clock, openai_wire, rules, sse
from agent.settings import Settings

MOST_ROUNDS = 5  # of tools before a model must have said something

log = logging.getLogger(__name__)

Recall = Callable[[str], Awaitable[tuple[rules.Found, ...]]]


class Said(NamedTuple):
    """The next piece of the reply."""

    text: str


class Used(NamedTuple):
    """A tool was used."""

    tool: str
    argument: str
    result: str


class BrainFailed(Exception):
    """No answer is to be had; the text is for the person who asked."""


class Brain(Protocol):
    name: str

    def memorable(self, message: str) -> bool: ...

    def cacheable(self, message: str, history: list[tuple[str, str]]) -> bool: ...

    def reply(self, message: str, history: list[tuple[str, str]], recall: Recall) -> AsyncIterator[Said | Used]: ...


class Rules:
    name = "rules"

    def memorable(self, message: str) -> bool:
        return rules.decide(message).memorable

    def cacheable(self, message: str, history: list[tuple[str, str]]) -> bool:
        return rules.decide(message).cacheable

    async def reply(self, message: str, history: list[tuple[str, str]], recall: Recall) -> AsyncIterator[Said | Used]:
        decision = rules.decide(message)
        result = problem = ""
        memories: tuple[rules.Found, ...] = ()
        try:
            result, memories = await _run(decision.tool, decision.argument, recall)
        except calculator.CannotCalculate as e:
            problem = str(e)
        except LookupError:
            problem = decision.argument
        if decision.tool not in ("", "remember"):
            yield Used(decision.tool, decision.argument, result or problem or f"{len(memories)} found")
        text = rules.answer(decision, result, memories, problem)
        for word in text.splitlines(keepends=True):
            for piece in _words(word):
                yield Said(piece)


class Model:
    """A model behind an OpenAI-compatible address."""

    def __init__(self, settings: Settings) -> None:
        self.name = settings.model_name
        self._model = settings.model
        headers = {"authorization": f"Bearer {settings.model_key}"} if settings.model_key else {}
        self._client = httpx.AsyncClient(
            base_url=settings.model_url, headers=headers, timeout=httpx.Timeout(120, connect=10)
        )

    async def close(self) -> None:
        await self._client.aclose()

    def memorable(self, message: str) -> bool:
        return rules.decide(message).memorable

    def cacheable(self, message: str, history: list[tuple[str, str]]) -> bool:
        """Only what has the same answer for everybody at any time: by the rules' judgement, at a beginning."""
        return not history and rules.decide(message).cacheable

    async def reply(self, message: str, history: list[tuple[str, str]], recall: Recall) -> AsyncIterator[Said | Used]:
        messages = openai_wire.opening(history, message)
        for _ in range(MOST_ROUNDS):
            gathering = openai_wire.Gathering()
            async for text in self._ask(messages, gathering):
                yield Said(text)
            calls = gathering.calls()
            if not calls:
                if not gathering.text:
                    raise BrainFailed("the model gave an empty answer")
                return
            results = []
            for call in calls:
                tool, argument, result = await _called(call, recall)
                results.append(result)
                yield Used(tool, argument, result)
            messages += openai_wire.answered(gathering, results)
        raise BrainFailed(f"the model asked for tools {MOST_ROUNDS} times and gave no answer")

    async def _ask(self, messages: list[dict[str, object]], gathering: openai_wire.Gathering) -> AsyncIterator[str]:
        body = openai_wire.request(self._model, messages)
        try:
            async with self._client.stream("POST", "/chat/completions", json=body) as response:
                if response.is_error:
                    text = (await response.aread()).decode(errors="replace")[:300]
                    raise BrainFailed(f"the model's server answered {response.status_code}: {text}")
                async for line in response.aiter_lines():
                    data = sse.data_of(line)
                    if data is not None and (added := gathering.take(data)):
                        yield added
        except httpx.HTTPError as e:
            raise BrainFailed(f"the model at {self._client.base_url} can't be reached: {e or type(e).__name__}") from e
        except ValueError as e:
            raise BrainFailed(f"the model's answer can't be read: {e}") from e


def choose(settings: Settings) -> Brain:
    return Model(settings) if settings.model_url else Rules()


async def _run(tool: str, argument: str, recall: Recall) -> tuple[str, tuple[rules.Found, ...]]:
    match tool:
        case "calculate":
            return calculator.calculate(argument), ()
        case "time":
            return clock.tell(argument, datetime.now(UTC)), ()
        case "recall":
            return "", await recall(argument)
    return "", ()


async def _called(call: openai_wire.ToolCall, recall: Recall) -> tuple[str, str, str]:
    """Our tool, its argument and the result as a text for the model."""
    try:
        tool, argument = call.ours()
    except ValueError as e:
        return call.name, call.arguments, str(e)
    try:
        result, memories = await _run(tool, argument, recall)
    except (calculator.CannotCalculate, LookupError) as e:
        return tool, argument, f"that did not work: {e}"
    if tool == "recall":
        result = json.dumps([m._asdict() for m in memories], ensure_ascii=False) if memories else "nothing found"
    return tool, argument, result


def _words(line: str) -> list[str]:
    """Pieces that put together are the line again, a word each."""
    pieces, rest = [], line
    while rest:
        at = rest.find(" ") + 1
        pieces.append(rest[:at] if at else rest)
        rest = rest[at:] if at else ""
    return pieces
