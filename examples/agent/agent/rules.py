"""The built-in agent: a few rules, no language model, no network, and no pretending.

Two pure functions. `decide` reads a message and says which tool it takes, if any; `answer` writes the reply from
what the tool found. Between the two, whoever holds the tools runs it (brains.py).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from agent import calculator, clock

WHAT_I_AM = (
    "I am a small rule-based agent, not a language model. I can remember what you tell me and find it again, "
    "do arithmetic, and tell the time. Give me a model with OPENAI_BASE_URL, and it answers in my place, "
    "with the same tools."
)
_CAPABILITIES = (
    "Try one of these:\n"
    "- Remember that the demo is on Friday at ten.\n"
    "- When is the demo?\n"
    "- What is 15% of 240?\n"
    "- What time is it in Tokyo?"
)


class Decision(NamedTuple):
    """What to do about a message. `tool` is "", "remember", "recall", "calculate" or "time"."""

    tool: str = ""
    argument: str = ""
    reply: str = ""  # without a tool: the whole reply
    memorable: bool = False  # the message tells something worth finding again
    cacheable: bool = False  # the same question will have the same answer


class Found(NamedTuple):
    """A memory: what was said, and when, as a date."""

    text: str
    date: str


_GREETING = re.compile(r"(hi|hello|hey|good (morning|day|evening))\b[\s,!.\w]{0,20}$", re.I)
_THANKS = re.compile(r"(thanks|thank you|great|ok|okay|bye|goodbye)\b[\s,!.\w]{0,20}$", re.I)
_SELF = re.compile(r"\b(who|what) are you\b|\bare you (an? )?(\w+ )?(ai|bot|llm|human|model|real|chatgpt|gpt)\b", re.I)
_HELP = re.compile(r"^help\b|\bwhat can you do\b|\bhow do(es)? (you|this) work\b", re.I)
_TIME = re.compile(
    r"\b(what|tell me|know|which)\b.*\b(time|date|day)\b.*\b(is it|now|today|in)\b"
    r"|\bwhat(?:'s| is) the (current )?(time|date)\b|^(time|date)\b",
    re.I,
)
_REMEMBER = re.compile(
    r"^(?:please\s+)?(?:remember|note|keep in mind|don't forget)(?:\s+that|:)?\s+(?P<what>.+)$", re.I
)
_RECALL = re.compile(
    r"\b(?:what|anything) (?:do|did|have) (?:you|i) (?:know|remember|tell you|told you|say|said)\b(?P<what>.*)"
    r"|^do you (?:know|remember)\b(?P<too>.*)|^(?:recall|search|find)\b(?P<also>.*)",
    re.I,
)
_QUESTION = re.compile(
    r"^(what|what's|who|who's|when|when's|where|where's|which|why|how|is|are|was|were|do|does|did|can|could|will|"
    r"would|should|have|has|am)\b|\?\s*$",
    re.I,
)


def decide(message: str) -> Decision:
    text = " ".join(message.split())
    if _GREETING.match(text):
        return Decision(reply=f"Hello! {WHAT_I_AM}", cacheable=True)
    if _SELF.search(text):
        return Decision(reply=WHAT_I_AM, cacheable=True)
    if _HELP.search(text):
        return Decision(reply=_CAPABILITIES, cacheable=True)
    if _THANKS.match(text):
        return Decision(
            reply="You are welcome. I keep what you told me, also when you come back later.", cacheable=True
        )
    if found := _REMEMBER.match(text):
        return Decision("remember", found["what"].rstrip(" ."), memorable=True)
    if found := _RECALL.search(text):
        what = (found["what"] or found["too"] or found["also"] or "").strip(" ?!.")
        return Decision("recall", re.sub(r"^(about|of|for|that|if)\s+", "", what) or text)
    if expression := calculator.find(text):
        return Decision("calculate", expression, cacheable=True)
    if _TIME.search(text):
        return Decision("time", clock.find_zone(text))
    if _QUESTION.search(text):
        return Decision("recall", text)
    return Decision("remember", text, memorable=True)


def answer(decision: Decision, result: str = "", memories: tuple[Found, ...] = (), problem: str = "") -> str:
    """The reply, after the tool has run. `problem` is why it could not."""
    match decision.tool:
        case "":
            return decision.reply
        case "remember":
            return f'Noted: "{_short(decision.argument)}". Ask me about it whenever you like, also after a restart.'
        case "calculate":
            return f"{_spaced(decision.argument)} = {result}" if not problem else f"I can't work that out: {problem}."
        case "time":
            return f"It is {result}." if not problem else f"I don't know a time zone called {problem}."
        case _:
            return _recalled(memories)


def _recalled(memories: tuple[Found, ...]) -> str:
    if not memories:
        return (
            "I find nothing about that in my memory. You can tell me, and I will remember. "
            "(I am a rule-based agent: beyond what you told me, sums and the time, I know nothing.)"
        )
    first, *others = memories
    reply = f'On {first.date} you told me: "{_short(first.text)}"'
    if others:
        reply += "\nAnd also:" + "".join(f'\n- {m.date}: "{_short(m.text)}"' for m in others)
    return reply


def _short(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def _spaced(expression: str) -> str:
    """2+3*4 → 2 + 3 * 4"""
    spaced = re.sub(r"\s*(\*\*|//|[+*/%]|(?<=[\d)])-)\s*", r" \1 ", expression)
    return " ".join(spaced.split())
