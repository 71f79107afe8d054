"""`autostart`: bring the project's containers back at boot, by a systemd unit that calls `kap` and nothing else."""

from __future__ import annotations

import os
from collections.abc import Sequence

from kapelle.cli import common
from kapelle.cli.flags import Args, Command, Flag
from kapelle.errors import EngineError, KapelleError
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.autostart import Unit
    from kapelle.cli.context import Context

NAME = "autostart"
HELP = "bring containers with restart: always or unless-stopped back at boot"
FLAGS = ()
PRINT = Flag("--print", help="print the systemd unit, change nothing")


def _unit(context: Context) -> Unit:
    from kapelle.cli import autostart

    return autostart.unit(context.project_name(), context.paths, context.environ, root=os.geteuid() == 0)


def _run(words: Sequence[str]) -> int:
    import subprocess

    return subprocess.run(list(words), check=False).returncode


def _install(context: Context, args: Args) -> int:
    from kapelle.cli import autostart

    common.no_arguments(args.rest, "autostart install")
    found = _unit(context)
    if args.print or context.dry_run:
        context.stdout.write(found.text)
        return 0
    _require_systemd(context)
    autostart.install(found, _run)
    context.stdout.write(f"{found.path} written and enabled\n")
    if found.user:
        context.stdout.write("for a start without a login, once: loginctl enable-linger\n")
    return 0


def _require_systemd(context: Context) -> None:
    from kapelle.cli import autostart

    if autostart.runs_here():
        return
    home = f"KAP_HOME={context.environ['KAP_HOME']} " if context.environ.get("KAP_HOME") else ""
    line = f"{home}{' '.join(autostart.command())} -p {context.project_name()} autostart boot"
    raise EngineError(
        "systemd does not run here, so there is nobody to start anything at boot",
        hint=f"have whatever starts this machine run:  {line}\n"
        "kap autostart install --print shows the unit for a machine with systemd",
        code="KAP902",
    )


def _remove(context: Context, args: Args) -> int:
    from kapelle.cli import autostart

    common.no_arguments(args.rest, "autostart remove")
    found = _unit(context)
    if not autostart.runs_here() and not os.path.lexists(found.path):
        context.stdout.write("not installed\n")
        return 0
    _require_systemd(context)
    gone = autostart.remove(found, _run)
    context.stdout.write(f"{found.path} removed\n" if gone else "not installed\n")
    return 0


def _status(context: Context, args: Args) -> int:
    from kapelle.cli import autostart
    from kapelle.engines.native import reboot

    common.no_arguments(args.rest, "autostart status")
    found = _unit(context)
    there = os.path.lexists(found.path)
    text = f"installed: {found.path}" if there else "not installed (kap autostart install)"
    if there:
        with open(found.path, encoding="utf-8") as f:
            if f.read() != found.text:
                text += ", not as this kap would write it: kap autostart install"
    if not autostart.runs_here():
        text += "; systemd does not run here"
    names = [c.name for c in reboot.comes_back(context.paths, context.project_name())]
    context.stdout.write(f"{text}\ncomes back at boot: {', '.join(names) or 'nothing'}\n")
    return 0 if there else 1


def _boot(context: Context, args: Args) -> int:
    """What the unit runs: each container by itself, so that one that fails keeps no other from coming back."""
    from kapelle.engines.native import reboot
    from kapelle.plan import order, steps
    from kapelle.render import errors

    common.no_arguments(args.rest, "autostart boot")
    name = context.project_name()
    engine = context.engine()
    failed = 0
    with context.locked(name):
        there = reboot.comes_back(context.paths, name)
        project = common.project_for_labels(context, engine.observe(name))
        grouped = order.by_service(c for c in there if not c.alive)
        for service in order.sort(order.edges_of(there)):
            for container in grouped.get(service, ()):
                try:
                    engine.perform(steps.StartContainer(container.name, service, "boot"), project, context.emit)
                except KapelleError as e:
                    failed = 1
                    context.stderr.write(errors.text(e))
    return failed


def _halt(context: Context, args: Args) -> int:
    """What the unit runs at shutdown: stop all, to come back."""
    from kapelle.plan import acts

    common.no_arguments(args.rest, "autostart halt")
    name = context.project_name()
    engine = context.engine()
    with context.locked(name):
        observed = engine.observe(name)
        context.run_plan(acts.stop(observed, halt=True), common.project_for_labels(context, observed))
    return 0


SUBCOMMANDS = {
    "install": Command("write and enable a systemd unit for the project", (PRINT,), _install),
    "remove": Command("take the unit away; what runs goes on", (), _remove),
    "status": Command("is it installed, and what comes back", (), _status),
    "boot": Command("start what comes back (the unit runs it)", (), _boot),
    "halt": Command("stop all, to come back (the unit runs it)", (), _halt),
}
