"""Durations, sizes and quoting as the docker command writes them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A rough length of time: "Less than a second", "18 seconds", "About an hour", "3 weeks"."""
    whole = int(max(0.0, seconds))
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds / 3600) // 24 // 365} years"


def size(number: float, digits: int = 3) -> str:
    """Bytes with decimal units and so many significant digits: "77.8MB"."""
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    at = 0
    while number >= 1000 and at < len(units) - 1:
        number /= 1000
        at += 1
    return f"{number:.{digits}g}{units[at]}"


def binary_size(number: float) -> str:
    """Bytes with binary units: "23.54GiB"."""
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    at = 0
    while number >= 1024 and at < len(units) - 1:
        number /= 1024
        at += 1
    return f"{number:.4g}{units[at]}"


def quoted(text: str) -> str:
    """A text in double quotes with escapes, as Go's strconv.Quote writes it."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\a": "\\a", "\b": "\\b", "\f": "\\f"}
    out = []
    for character in text:
        if character in escapes:
            out.append(escapes[character])
        elif character.isprintable():
            out.append(character)
        else:
            code = ord(character)
            out.append(f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return '"' + "".join(out) + '"'


def command_line(words: tuple[str, ...]) -> str:
    """A container's command in one line; words with a space in quotes, as the engine's API tells it."""
    if not words:
        return ""
    return " ".join((words[0], *(f"'{w}'" if " " in w else w for w in words[1:])))


def clock(seconds: float) -> str:
    """A moment as the docker command prints it: "2026-11-25 02:23:20 +0000 UTC"."""
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))


def rfc3339(nanoseconds: int) -> str:
    """A moment with nine digits of a second, in UTC: "2026-11-25T02:23:23.142361074Z"."""
    import time

    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"
