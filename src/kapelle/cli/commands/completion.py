"""`completion`: a script for the shell that completes verbs, flags and service names. Made from the tables."""

from __future__ import annotations

from kapelle.cli.flags import Args
from kapelle.errors import UsageError
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "completion"
HELP = "print a completion script for bash, zsh or fish"
ARGUMENTS = "bash|zsh|fish"
FLAGS = ()

_BASH = """_kap() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} verb= i flags= words=
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${{COMP_WORDS[i]}} in
      -f|--file|-p|--project-name|--profile|--env-file|--progress|--ansi|--project-directory|--parallel) ((i++)) ;;
      -*) ;;
      *) verb=${{COMP_WORDS[i]}}; break ;;
    esac
  done
  case $verb in
{cases}
    *) words="{verbs}"; flags="{global_flags}" ;;
  esac
  if [[ $word == -* ]]; then words=$flags
  elif [[ -n $verb && -z $words ]]; then words=$(kap config --services 2>/dev/null); fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _kap kap
"""


def run(context: Context, args: Args) -> int:
    shell = args.rest[0] if len(args.rest) == 1 else ""
    if shell not in ("bash", "zsh", "fish"):
        raise UsageError("name one shell: bash, zsh or fish", hint="source <(kap completion bash)")
    if shell == "fish":
        context.stdout.write(_fish())
        return 0
    if shell == "zsh":
        context.stdout.write("autoload -U +X bashcompinit && bashcompinit\n")
    context.stdout.write(_bash())
    return 0


def _tables() -> dict[str, tuple[str, str]]:
    """Verb -> (its flags, its subcommands), for verbs that exist."""
    from kapelle.cli.dispatch import COMMANDS, command

    found = {}
    for verb in sorted(COMMANDS):
        try:
            module = command(verb)
        except UsageError:
            continue
        flags = " ".join(f.long for f in module.FLAGS if not f.hidden)
        found[verb] = (f"{flags} --help".strip(), " ".join(getattr(module, "SUBCOMMANDS", ())))
    return found


def _bash() -> str:
    from kapelle.cli.dispatch import GLOBAL_FLAGS

    tables = _tables()
    cases = "\n".join(f'    {verb}) flags="{flags}"; words="{words}" ;;' for verb, (flags, words) in tables.items())
    global_flags = " ".join(f.long for f in GLOBAL_FLAGS if not f.hidden)
    return _BASH.format(cases=cases, verbs=" ".join(tables), global_flags=global_flags)


def _fish() -> str:
    from kapelle.cli.dispatch import command

    tables = _tables()
    lines = ["complete -c kap -f"]
    for verb, (_, words) in tables.items():
        module = command(verb)
        lines.append(f"complete -c kap -n __fish_use_subcommand -a {verb} -d '{_quoted(module.HELP)}'")
        inside = f"-n '__fish_seen_subcommand_from {verb}'"
        for flag in module.FLAGS:
            if not flag.hidden:
                short = f" -s {flag.short[1]}" if flag.short else ""
                lines.append(f"complete -c kap {inside} -l {flag.long[2:]}{short} -d '{_quoted(flag.help)}'")
        what = words or "(kap config --services 2>/dev/null)"
        lines.append(f"complete -c kap {inside} -a '{what}'")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return text.replace("'", "\\'")
