"""The example agent's own logic: what its rules decide and say, its calculator, clock and model wire."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "agent"))

from agent import calculator, clock, openai_wire, rules, settings, sse


@pytest.mark.parametrize(
    ("message", "tool", "argument"),
    [
        ("Hello!", "", ""),
        ("who are you?", "", ""),
        ("Are you a language model or an AI?", "", ""),
        ("help", "", ""),
        ("thanks a lot", "", ""),
        ("Remember that the demo is on Friday at ten.", "remember", "the demo is on Friday at ten"),
        ("remember: buy milk", "remember", "buy milk"),
        ("I like oolong tea", "remember", "I like oolong tea"),
        ("My sister lives in Time Square", "remember", "My sister lives in Time Square"),
        ("What do you know about tea?", "recall", "tea"),
        ("Do you remember the demo?", "recall", "the demo"),
        ("When is the demo?", "recall", "When is the demo?"),
        ("What is my name?", "recall", "What is my name?"),
        ("What is 2+3*4?", "calculate", "2+3*4"),
        ("How much is 15% of 240", "calculate", "15/100*240"),
        ("1,000 times 3", "calculate", "1000 * 3"),
        ("what's the square root of 2?", "calculate", "sqrt(2)"),
        ("7 x 6", "calculate", "7*6"),
        ("What time is it?", "time", ""),
        ("what time is it in New York?", "time", "New York"),
        ("What day is it today?", "time", ""),
        ("The meeting is on 2026-11-25", "remember", "The meeting is on 2026-11-25"),
    ],
)
def test_a_message_chooses_its_tool(message: str, tool: str, argument: str) -> None:
    decision = rules.decide(message)
    assert (decision.tool, decision.argument) == (tool, argument)


def test_only_what_tells_something_is_memorable() -> None:
    assert rules.decide("My favourite tea is oolong").memorable
    assert not any(rules.decide(m).memorable for m in ("What is my favourite tea?", "2+2", "Hello", "what time is it?"))


def test_what_depends_on_memory_or_time_is_never_cached() -> None:
    assert rules.decide("what is 2+2?").cacheable
    assert not any(rules.decide(m).cacheable for m in ("what time is it?", "what is my name?", "I like tea"))


def test_the_agent_says_what_it_is() -> None:
    assert "not a language model" in rules.answer(rules.decide("who are you?"))


def test_a_memory_is_answered_with_its_date_and_a_missing_one_honestly() -> None:
    decision = rules.decide("What is my favourite tea?")
    found = (rules.Found("My favourite tea is oolong", "2026-11-25"), rules.Found("I drink tea at four", "2026-11-20"))
    assert rules.answer(decision, memories=found) == (
        'On 2026-11-25 you told me: "My favourite tea is oolong"\nAnd also:\n- 2026-11-20: "I drink tea at four"'
    )
    assert "find nothing" in rules.answer(decision)


def test_a_sum_is_answered_with_its_expression() -> None:
    assert rules.answer(rules.decide("what is 2+3*-4?"), result="-10") == "2 + 3 * -4 = -10"
    assert "divided by zero" in rules.answer(rules.decide("1/0"), problem="nothing can be divided by zero")


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2+3*4", "14"), ("(2+3)*4", "20"), ("-7//2", "-4"), ("7%3", "1"), ("2**10", "1024"), ("10/4", "2.5"),
        ("10/5", "2"), ("0.1+0.2", "0.3"), ("sqrt(16)", "4"), ("2**-1", "0.5"), ("1e3+1", "1001"), ("--3", "3"),
        ("15/100*240", "36"),
    ],
)  # fmt: skip
def test_arithmetic_is_right(expression: str, value: str) -> None:
    assert calculator.calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    ["9**9**9", "2**100000",
     "1/0", "(-8)**0.5", "sqrt(-1)", "1+", "a+1", "__import__('os')", "(1).real", "[1]", "True+1",
     "1 if 1 else 2", "sqrt(1,2)", "1" * 300, "(" * 190, "1e999", "", "lambda: 1", "0**-1", "10**60*10**60"],
)  # fmt: skip
def test_what_is_no_arithmetic_or_too_large_is_refused_in_words(expression: str) -> None:
    with pytest.raises(calculator.CannotCalculate) as refused:
        calculator.calculate(expression)
    assert str(refused.value)


def test_the_time_is_told_in_a_place_and_an_unknown_place_is_not_guessed() -> None:
    noon = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
    assert clock.tell("", noon) == "Wednesday, 25 November 2026, 12:00:00 UTC"
    with pytest.raises(LookupError):
        clock.tell("Atlantis", noon)


def test_a_streamed_model_answer_is_put_together() -> None:
    gathering = openai_wire.Gathering()
    chunks = [
        {"choices": [{"delta": {"role": "assistant", "content": "Let me "}}]},
        {"choices": [{"delta": {"content": "see."}}]},
        {"choices": [{"delta": {"tool_calls": [
            {"index": 0, "id": "c1", "function": {"name": "calculate", "arguments": '{"expres'}}]}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": 'sion": "2+2"}'}}]}}]},
        {"choices": [], "usage": {"total_tokens": 9}},
    ]  # fmt: skip
    assert "".join(gathering.take(json.dumps(c)) for c in chunks) == "Let me see."
    assert gathering.take("[DONE]") == ""
    (call,) = gathering.calls()
    assert call.ours() == ("calculate", "2+2")
    asked, told = openai_wire.answered(gathering, ["4"])
    assert asked["tool_calls"][0]["id"] == told["tool_call_id"] == "c1"


@pytest.mark.parametrize(
    ("name", "arguments"), [("delete_all", "{}"), ("calculate", "{not json"), ("calculate", "[1]")]
)
def test_a_senseless_tool_call_is_told_to_the_model(name: str, arguments: str) -> None:
    with pytest.raises(ValueError):
        openai_wire.ToolCall("c1", name, arguments).ours()


def test_an_error_in_the_stream_is_an_error() -> None:
    with pytest.raises(ValueError, match="no credit"):
        openai_wire.Gathering().take('{"error": {"message": "no credit"}}')


def test_an_event_survives_being_written_and_read() -> None:
    text = sse.write("token", {"text": "a\nb ü"})
    event, data, *rest = text.split("\n")
    assert (event, rest) == ("event: token", ["", ""])
    assert json.loads(sse.data_of(data) or "") == {"text": "a\nb ü"}
    assert sse.data_of(": keep-alive") is None


def test_settings_take_secrets_from_files_and_show_no_password(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("from a file\n")
    read = settings.read(
        {
            "DATABASE_URL": "postgresql://agent:hidden@db:5432/agent_db",
            "DATABASE_PASSWORD_FILE": str(secret),
            "REDIS_URL": "redis://cache:6379/0",
        }
    )
    assert read.database_password == "from a file"
    assert (read.database_address, read.cache_address) == ("db:5432/agent_db", "cache:6379")
    assert read.model_name == "rules"
