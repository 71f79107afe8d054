"""Plain YAML scalars as the reference's YAML library reads them, and numbers as it writes them.

Its mix of YAML 1.1 and 1.2: `yes`, `on`, `off` are strings; `0o17` and `017` are octal, `1_000` is a thousand;
`2001-01-01` is a time (which no key accepts).
"""

from __future__ import annotations

from kapelle.light import Any

_WORDS: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
    ".nan": float("nan"), ".NaN": float("nan"), ".NAN": float("nan"),
    ".inf": float("inf"), ".Inf": float("inf"), ".INF": float("inf"),
    "+.inf": float("inf"), "+.Inf": float("inf"), "+.INF": float("inf"),
    "-.inf": float("-inf"), "-.Inf": float("-inf"), "-.INF": float("-inf"),
}  # fmt: skip
_NUMBER_START = frozenset("+-.0123456789")
_INT64_MIN, _UINT64_MAX = -(1 << 63), (1 << 64) - 1


class Timestamp(str):
    """A scalar that reads as a date; it keeps its text for messages."""

    __slots__ = ()


def resolve(text: str) -> Any:
    """The value of an unquoted scalar without a tag."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_START:
        return text
    return _number(text)


def _number(text: str) -> Any:
    if text[0] == ".":
        value = _float(text)
        return text if value is None else value
    if len(text) > 7 and text[4] == "-" and text[:4].isdigit() and _is_time(text):
        return Timestamp(text)
    plain = text.replace("_", "")
    integer = parse_int(plain)
    if integer is not None:
        return integer
    if _looks_float(plain):
        value = _float(plain)
        if value is not None:
            return value
    sign, body = (plain[0], plain[1:]) if plain[:1] in ("-", "+") else ("", plain)
    if sign != "+" and body[:2] in ("0b", "0o"):
        integer = _digits(body[2:], 2 if body[1] == "b" else 8)
        if integer is not None:
            return -integer if sign else integer
    return text


def parse_int(text: str) -> int | None:
    """An integer with an optional sign and prefix (0x, 0o, 0b, or a leading 0 for octal) that fits 64 bits."""
    sign, body = (text[0], text[1:]) if text[:1] in ("-", "+") else ("", text)
    prefix = body[:2].lower()
    if prefix == "0x":
        value = _digits(body[2:], 16)
    elif prefix == "0b":
        value = _digits(body[2:], 2)
    elif prefix == "0o":
        value = _digits(body[2:], 8)
    elif len(body) > 1 and body[0] == "0":
        value = _digits(body[1:], 8)
    else:
        value = _digits(body, 10)
    if value is None:
        return None
    value = -value if sign == "-" else value
    return value if _INT64_MIN <= value <= _UINT64_MAX else None


def _digits(text: str, base: int) -> int | None:
    if not text or not text.isascii() or not text.isalnum() or len(text) > 70:
        return None
    try:
        return int(text, base)
    except ValueError:
        return None


def _looks_float(text: str) -> bool:
    mantissa, _, exponent = text.lower().partition("e")
    if "e" in text.lower() and not _is_digits(exponent[1:] if exponent[:1] in ("-", "+") else exponent):
        return False
    mantissa = mantissa[1:] if mantissa[:1] in ("-", "+") else mantissa
    whole, dot, fraction = mantissa.partition(".")
    if not whole:
        return bool(dot) and _is_digits(fraction)
    return _is_digits(whole) and (not fraction or _is_digits(fraction))


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _float(text: str) -> float | None:
    if not _looks_float(text):
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return None if value in (float("inf"), float("-inf")) else value


def _is_time(text: str) -> bool:
    """yyyy-m-d, or that with a time of day and zone, as four layouts of RFC 3339."""
    import re

    match = re.fullmatch(
        r"\d{4}-(\d{1,2})-(\d{1,2})(?:(?:[Tt]| )(\d{1,2}):(\d{1,2}):(\d{1,2})(?:\.\d+)?(Z|[+-]\d\d:\d\d)?)?", text
    )
    if match is None:
        return False
    month, day = int(match[1]), int(match[2])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return False
    if match[3] is None:
        return True
    spaced = " " in text
    return int(match[3]) < 24 and int(match[4]) < 60 and int(match[5]) < 60 and spaced == (match[6] is None)


def float_text(value: float) -> str:
    """A number as text where a string is wanted, and in YAML output: `1.5`, `100000`, `1e+06`, `1e-05`."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    digits, exponent, sign = _shortest(value)
    if exponent < -4 or exponent >= 6:
        return sign + _scientific(digits, exponent)
    return sign + _plain(digits, exponent)


def _shortest(value: float) -> tuple[str, int, str]:
    text = repr(abs(value))
    mantissa, _, exponent_text = text.partition("e")
    exponent = int(exponent_text or 0)
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return "0", 0, ""
    exponent += len(whole) - 1 if whole != "0" else -(len(fraction) - len(fraction.lstrip("0"))) - 1
    return digits.rstrip("0") or "0", exponent, "-" if value < 0 else ""


def _plain(digits: str, exponent: int) -> str:
    if exponent < 0:
        return "0." + "0" * (-exponent - 1) + digits
    if len(digits) <= exponent + 1:
        return digits + "0" * (exponent + 1 - len(digits))
    return digits[: exponent + 1] + "." + digits[exponent + 1 :]


def _scientific(digits: str, exponent: int) -> str:
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
