"""Command-line words to values: a table of flags per command, read as Docker's command line reads them (pflag)."""

from __future__ import annotations

from collections.abc import Callable

from kapelle.errors import UsageError
from kapelle.light import Any, NamedTuple

_TRUE, _FALSE = ("1", "t", "true", "TRUE", "True", "T"), ("0", "f", "false", "FALSE", "False", "F")


class Flag(NamedTuple):
    long: str  # "--services"
    short: str = ""  # "-o"
    value: str = ""  # name of its value in the help; "" = a switch
    default: Any = None
    repeat: bool = False
    choices: tuple[str, ...] = ()
    kind: str = "str"  # str, int, float
    help: str = ""
    hidden: bool = False
    aliases: tuple[str, ...] = ()  # further long spellings

    @property
    def key(self) -> str:
        return self.long[2:].replace("-", "_")


class Args:
    """What was given: flags as attributes (`no_cache`), the other words in `rest`."""

    def __init__(self, flags: tuple[Flag, ...]) -> None:
        self.rest: list[str] = []
        self.given: set[str] = set()
        self._values: dict[str, Any] = {
            f.key: [] if f.repeat else f.default if f.value or f.default is not None else False for f in flags
        }

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise AttributeError(name) from None

    def set(self, flag: Flag, text: str) -> None:
        self.given.add(flag.key)
        value = _convert(flag, text)
        if flag.repeat:
            self._values[flag.key].append(value)
        else:
            self._values[flag.key] = value

    def replace(self, key: str, value: Any) -> None:
        """Go on as if a flag had been given another value."""
        self._values[key] = value


class Command(NamedTuple):
    """A command of a group (`volume ls`), with the names that a command's own module has."""

    HELP: str
    FLAGS: tuple[Flag, ...]
    run: Callable[[Any, Args], int]  # given the Context
    ARGUMENTS: str = ""
    STOP_AT_FIRST_POSITIONAL: bool = False
    DRY_RUN: str = ""  # what a dry run says that it would do, of commands that can't show it


def parse(flags: tuple[Flag, ...], words: list[str], *, stop_at_first: bool = False) -> Args:
    """Read a command's words. With `stop_at_first`, all from the first plain word on is `rest` (exec, run)."""
    names = {name: f for f in flags for name in (f.long, f.short, *f.aliases) if name}
    args = Args(flags)
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            args.rest += words[at:]
            break
        if word.startswith("--"):
            name, equals, text = word.partition("=")
            flag = names.get(name)
            if flag is None:
                raise UsageError(f"unknown flag: {name}", hint=_near(name, names))
            if flag.value and not equals:
                if at == len(words):
                    raise UsageError(f"flag needs an argument: {name}")
                text = words[at]
                at += 1
            args.set(flag, text if flag.value or equals else "true")
        elif word.startswith("-") and len(word) > 1:
            at = _short(word, words, at, names, args)
        elif stop_at_first:
            args.rest += words[at - 1 :]
            break
        else:
            args.rest.append(word)
    return args


def _short(word: str, words: list[str], at: int, names: dict[str, Flag], args: Args) -> int:
    """A bundle such as -it, -ofile, -o=file, -o file."""
    letters = word[1:]
    while letters:
        flag = names.get(f"-{letters[0]}")
        if flag is None:
            raise UsageError(f"unknown shorthand flag: '{letters[0]}' in {word}")
        letters = letters[1:]
        if not flag.value:
            if letters.startswith("="):
                args.set(flag, letters[1:])
                return at
            args.set(flag, "true")
            continue
        if letters:
            args.set(flag, letters.removeprefix("="))
            return at
        if at == len(words):
            raise UsageError(f"flag needs an argument: '{flag.short[1]}' in {word}")
        args.set(flag, words[at])
        return at + 1
    return at


def _convert(flag: Flag, text: str) -> Any:
    problem = f'invalid argument "{text}" for "{flag.short + ", " if flag.short else ""}{flag.long}" flag'
    if not flag.value:
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        raise UsageError(f"{problem}: not a yes or no")
    if flag.choices and text not in flag.choices:
        raise UsageError(f"{problem}: one of {', '.join(filter(None, flag.choices))}")
    if flag.kind != "str":
        try:
            return int(text) if flag.kind == "int" else float(text)
        except ValueError:
            raise UsageError(f"{problem}: not a number") from None
    return text


def _near(name: str, names: dict[str, Flag]) -> str:
    import difflib

    close = difflib.get_close_matches(name, names, 1)
    return f"did you mean {close[0]}?" if close else ""
