"""Arithmetic from a sentence: finds the expression, and evaluates it without handing anything to eval()."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable

Number = int | float

_WORDS = (
    (r"(\d)\s*%\s+of\s+", r"\1/100*"),  # 15% of 80
    (r"\b(?:multiplied by|times)\b|(?<=[\d)])\s*[x×]\s*(?=[\d(])", "*"),
    (r"\bdivided by\b|÷", "/"),
    (r"\bplus\b", "+"),
    (r"\bminus\b|−", "-"),
    (r"\bto the power of\b|\^", "**"),
    (r"\bsquare root of\s+([\d.]+)", r"sqrt(\1)"),
    (r"(?<=\d),(?=\d{3}\b)", ""),  # 1,000
)
_EXPRESSION = re.compile(r"(?:sqrt|[\d(.-])(?:sqrt|[\d\s().+*/%-])*")
_BINARY: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: dict[type[ast.unaryop], Callable[[Number], Number]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_LONGEST = 200
_LARGEST = 10**60


class CannotCalculate(ValueError):
    """The expression has no answer here; the text says why."""


def find(sentence: str) -> str:
    """The expression in a sentence, in Python's writing; "" if there is none worth calculating."""
    text = sentence.lower()
    for pattern, replacement in _WORDS:
        text = re.sub(pattern, replacement, text)
    found = [m.group().strip() for m in _EXPRESSION.finditer(text)]
    # a number alone, or a date such as 2026-11-25, is no question for a calculator
    found = [f for f in found if re.search(r"\d\s*[+*/%-]+\s*[\d(.-]|sqrt", f) and not re.fullmatch(r"\d+-\d+-\d+", f)]
    return max(found, key=len, default="")


def calculate(expression: str) -> str:
    """The value as people write it: 0.1 + 0.2 is 0.3. Raises CannotCalculate."""
    if len(expression) > _LONGEST:
        raise CannotCalculate("that is too long for me")
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError):
        raise CannotCalculate("I can't read that as arithmetic") from None
    except ZeroDivisionError:
        raise CannotCalculate("nothing can be divided by zero") from None
    except OverflowError:
        raise CannotCalculate("the result is too large for me") from None
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        return f"{value:.12g}"
    return str(value)


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _checked(number)
        case ast.UnaryOp(op, operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(operand))
        case ast.BinOp(left, ast.Pow(), right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left, op, right) if type(op) in _BINARY:
            return _checked(_BINARY[type(op)](_value(left), _value(right)))
        case ast.Call(ast.Name("sqrt"), [argument], []):
            number = _value(argument)
            if number < 0:
                raise CannotCalculate("a negative number has no real square root")
            return math.sqrt(number)
    raise CannotCalculate("I only know numbers, + - * / % ** and sqrt()")


def _power(base: Number, exponent: Number) -> Number:
    if abs(exponent) > 200 or (abs(base) > 1 and exponent * math.log10(abs(base)) > 60):
        raise CannotCalculate("the result is too large for me")
    if base < 0 and not float(exponent).is_integer():
        raise CannotCalculate("the result is not a real number")
    result: Number = base**exponent
    return _checked(result)


def _checked(number: Number) -> Number:
    if math.isnan(number) or abs(number) > _LARGEST:
        raise CannotCalculate("the result is too large for me")
    return number
