"""`doctor`: what this machine lets Kapelle do, what is lost, and the commands that give it back."""

from __future__ import annotations

from kapelle.cli.flags import Args, Flag
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.engines.native.doctor import Report

NAME = "doctor"
HELP = "what this machine allows, what is lost, and how to get it"
ARGUMENTS = ""
FLAGS = (
    Flag("--format", value="FORMAT", default="pretty", choices=("pretty", "json"), help="pretty or json"),
    Flag("--admin-script", help="print a script of what an administrator can do once"),
)


def run(context: Context, args: Args) -> int:
    from kapelle.engines.native import doctor

    report = doctor.examine(context.paths, context.environ.get("KAP_RUNG", ""), context.environ.get("KAP_OVERLAY", ""))
    if args.admin_script:
        context.stdout.write(doctor.admin_script(report))
    elif args.format == "json":
        import json

        findings = [finding._asdict() for finding in report.findings]
        context.stdout.write(json.dumps({"rung": report.rung, "findings": findings}) + "\n")
    else:
        context.stdout.write(_text(report))
    return 0 if report.rung else 1


def _text(report: Report) -> str:
    from kapelle.engines.native.rung import WORDS

    head = f"rung {report.rung}: {WORDS[report.rung]}" if report.rung else "containers can't be started here"
    rows = [head, ""]
    width = max(len(f.name) for f in report.findings) + 2
    for f in report.findings:
        rows.append(f"  {f.name:{width}}{'yes' if f.ok else 'no ':5}{f.seen}")
        if not f.ok:
            for word, text in (("lost", f.lost), ("admin", f.admin), ("you", f.user)):
                if text:
                    rows.append(f"  {'':{width}}     {word:6}{text}")
    return "\n".join(rows) + "\n"
