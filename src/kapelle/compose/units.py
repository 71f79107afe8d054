"""Durations, sizes and numbers as compose files write them, and as `config` prints them. Pure."""

from __future__ import annotations

_DURATION = {"h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 1000, "µs": 1000, "μs": 1000, "ns": 1}
_SIZE = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


def duration(text: str) -> int:
    """Nanoseconds of a Go duration ("1h5m30.5s"). Raises ValueError."""
    sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    total, at = 0.0, 0
    if not rest:
        raise ValueError(text)
    while at < len(rest):
        start = at
        while at < len(rest) and (rest[at].isdigit() or rest[at] == "."):
            at += 1
        number = rest[start:at]
        start = at
        while at < len(rest) and not (rest[at].isdigit() or rest[at] == "."):
            at += 1
        unit = rest[start:at]
        if unit not in _DURATION or not number.replace(".", "", 1).isdigit():
            raise ValueError(text)
        total += float(number) * _DURATION[unit]
    return sign * round(total)


def duration_text(nanoseconds: int) -> str:
    """As Go prints it: "1m30s", "2m0s", "500ms", "0s"."""
    if nanoseconds == 0:
        return "0s"
    sign, left = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    text = ""
    for unit in ("h", "m"):
        count, left = divmod(left, _DURATION[unit])
        if count or text:
            text += f"{count}{unit}"
    unit = "s" if text else next(u for u in ("s", "ms", "us", "ns") if left >= _DURATION[u] or u == "ns")
    whole, rest = divmod(left, _DURATION[unit])
    width = len(str(_DURATION[unit])) - 1
    fraction = f".{rest:0{width}d}".rstrip("0") if rest else ""
    return f"{sign}{text}{whole}{fraction}{'µs' if unit == 'us' else unit}"


def seconds(text: str) -> float:
    return duration(text) / 1e9


def size(value: str | int | float) -> int:
    """Bytes of "512m", "1.5GB", 1024 (base 1024). Raises ValueError."""
    if isinstance(value, (int, float)):
        return int(value)
    text = value.strip().lower().replace(" ", "")
    digits = text.rstrip("bkmgtpi")
    unit = (
        text[len(digits) :].removesuffix("b").removesuffix("i") if len(text) - len(digits) > 1 else text[len(digits) :]
    )
    if unit == "b":
        unit = ""
    if unit not in _SIZE or not digits.lstrip("-").replace(".", "", 1).isdigit():
        raise ValueError(value)
    return int(float(digits) * _SIZE[unit])
