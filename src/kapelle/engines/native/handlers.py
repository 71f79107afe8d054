"""What the supervisor is asked, and how it answers.

Messages are those of engines.native.messages, one answer each unless said:
  {"op": "start", "id"} (+ three standard streams to use instead of the log)
  {"op": "stop", "id", "signal", "timeout"} (+ "removing": once it has ended it is forgotten)
  {"op": "stops", "rows": [what follows "stop", …]}: as many answers, each with its "id", as they end
  {"op": "kill", "id", "signal"}    {"op": "pause"|"unpause", "id"}
  {"op": "forget", "id"} (+ "removing": and nothing takes its place)
  {"op": "wait", "ids", "until": running|healthy|ready|exited}: answers {"ok", "results": {id: status}}
  {"op": "exec", "id", "args", …} + streams: {"pid"} (+ terminal), then {"exit": code}
  {"op": "attach", "id"}: {"tty", "stdin"} + ends of its stdout and stderr to read, of its stdin or terminal to write
  {"op": "close_stdin", "id"}    {"op": "forget_network", "name"}
  {"op": "prepare", "network"}: not answered    {"op": "ping"}    {"op": "quit"}
"""

from __future__ import annotations

import os
from collections.abc import Callable

from kapelle.engines.native import messages
from kapelle.engines.native.clients import Client, Part, Waiter
from kapelle.engines.native.joining import join
from kapelle.engines.native.keeper_files import exit_code
from kapelle.engines.native.signals import signal_number
from kapelle.errors import KapelleError
from kapelle.light import TYPE_CHECKING, Any, signal

if TYPE_CHECKING:
    from kapelle.engines.native.supervisor import Supervisor

Handler = Callable[["Supervisor", Client, dict[str, Any], list[int]], None]


def refusal(e: KapelleError) -> dict[str, Any]:
    """An error as an answer."""
    return {"error": e.what, "code": 1, "details": e.details, "hint": e.hint, "kap": e.code}


def _ping(supervisor: Supervisor, client: Client, _message: dict[str, Any], _fds: list[int]) -> None:
    client.answer({"ok": True, "pid": os.getpid()})


def _quit(supervisor: Supervisor, client: Client, _message: dict[str, Any], _fds: list[int]) -> None:
    if any(c.alive for c in supervisor.containers.values()):
        client.answer({"ok": False})
        return
    alone = len(supervisor.clients) == 1
    client.answer({"ok": alone and supervisor.leave(), "keeper": supervisor.keeper_pid})


def _start(supervisor: Supervisor, client: Client, message: dict[str, Any], fds: list[int]) -> None:
    if str(message.get("id")) in supervisor.removed:  # asked again after a kill: it has run, ended and gone
        client.answer({"ok": True, "already": True})
        return
    container = supervisor.the(message)
    container.streams.terminal_given = bool(message.get("terminal"))
    if not container.alive:
        container.forget_restarts()

    def answer(reply: dict[str, Any]) -> None:
        if "ok" in reply and container.streams.terminal_given and container.streams.terminal >= 0:
            client.answer(reply, (container.streams.terminal,))
        else:
            client.answer(reply)

    container.start(answer, fds[:3], message.get("size"))


def _stop(supervisor: Supervisor, client: Client, message: dict[str, Any], _fds: list[int]) -> None:
    container = supervisor.the(message)
    container.removing = bool(message.get("removing"))
    if not container.alive:
        container.status["stopped_by_user"] = True
        container.save()
        client.answer({"ok": True, "already": True, "status": container.status})
        if container.removing:
            supervisor.forget(container.id)
        return
    supervisor.waiters.append(Waiter(client, [container.id], "exited"))
    container.status["halted"] = bool(message.get("halt"))
    strict = supervisor.strict or bool(message.get("strict"))
    container.stop(signal_number(str(message["signal"])), float(message["timeout"]), strict=strict)


def _stops(supervisor: Supervisor, client: Client, message: dict[str, Any], _fds: list[int]) -> None:
    for row in message["rows"]:
        part = Part(client, str(row["id"]))
        try:
            _stop(supervisor, part, row, [])
        except KapelleError as e:
            part.answer(refusal(e))


def _kill(supervisor: Supervisor, client: Client, message: dict[str, Any], _fds: list[int]) -> None:
    container = supervisor.the(message)
    number = signal_number(str(message["signal"]))
    if number == signal.SIGKILL:
        container.status["stopped_by_user"] = True
    if not container.signal(number):
        client.answer({"error": f"container {container.intent['name']} is not running", "code": 1})
        return
    supervisor.event(container, "kill", signal=str(int(number)))
    client.answer({"ok": True})


def _pause(supervisor: Supervisor, client: Client, message: dict[str, Any], _fds: list[int]) -> None:
    container = supervisor.the(message)
    if container.state != "running":
        client.answer({"error": f"container {container.intent['name']} is not running", "code": 1})
        return
    container.pause()
    client.answer({"ok": True})


def _unpause(supervisor: Supervisor, client: Client, message: dict[str, Any], _fds: list[int]) -> None:
    container = supervisor.the(message)
    if container.state != "paused":
        client.answer({"error": f"container {container.intent['name']} is not paused", "code": 1})
        return
    container.unpause()
    client.answer({"ok": True})


def _forget(supervisor: Supervisor, client: Client, message: dict[str, Any], _fds: list[int]) -> None:
    container = supervisor.containers.get(str(message.get("id")))
    if container is not None and container.alive:
        client.answer({"error": f"container {container.intent['name']} is running", "code": 1})
        return
    client.answer({"ok": True})
    if message.get("removing"):
        supervisor.forget(str(message.get("id")))
    else:
        supervisor.containers.pop(str(message.get("id")), None)


def _forget_network(supervisor: Supervisor, client: Client, message: dict[str, Any], _fds: list[int]) -> None:
    supervisor.networks.remove(str(message["name"]))
    client.answer({"ok": True})


def _wait(supervisor: Supervisor, client: Client, message: dict[str, Any], _fds: list[int]) -> None:
    waiter = Waiter(client, [str(i) for i in message["ids"]], str(message["until"]))
    for container_id in waiter.ids:
        container = supervisor.container(container_id)
        if container is not None and container.health is not None:
            container.health.hurry()
    if not supervisor.settle(waiter):
        supervisor.waiters.append(waiter)
        return
    for container in [c for c in map(supervisor.containers.get, waiter.ids) if c is not None]:
        if container.intent["remove_on_exit"] and container.state == "exited":
            supervisor.remove_ended(container)


def _exec(supervisor: Supervisor, client: Client, message: dict[str, Any], fds: list[int]) -> None:
    container = supervisor.the(message)
    if container.state != "running":
        client.answer({"error": f"container {container.intent['name']} is {container.state}", "code": 1})
        return
    pid, sync = join(supervisor, container, message, fds)
    error: dict[str, Any] = {}

    def on_sync(_: int) -> None:
        said, given = messages.receive(sync)
        if said is None:
            supervisor.loop.remove(sync.fileno())
            sync.close()
        elif said.get("at") == "terminal":
            client.answer({"terminal": True}, tuple(given))
        elif "error" in said:
            error.update(said)
        for fd in given:
            os.close(fd)

    def ended(status: int) -> None:
        while sync.fileno() >= 0:
            on_sync(0)
        client.answer(error or {"exit": exit_code(status)})

    supervisor.loop.add(sync.fileno(), on_sync)
    supervisor.keeper.watch(pid, ended)
    client.answer({"pid": pid})


def _attach(supervisor: Supervisor, client: Client, message: dict[str, Any], _fds: list[int]) -> None:
    container = supervisor.the(message)
    if container.state != "running":
        client.answer({"error": f"container {container.intent['name']} is {container.state}", "code": 1})
        return
    tty, given = container.streams.attach()
    client.answer({"ok": True, "tty": tty, "stdin": len(given) > 2}, tuple(given))
    for fd in given[:2]:
        os.close(fd)


def _close_stdin(supervisor: Supervisor, client: Client, message: dict[str, Any], _fds: list[int]) -> None:
    supervisor.the(message).streams.close_stdin()
    client.answer({"ok": True})


def _neighbours(supervisor: Supervisor, _client: Client, _message: dict[str, Any], _fds: list[int]) -> None:
    """Another project has changed something on a network that we share. Not answered."""
    supervisor.networks.neighbours_changed()


def _prepare(supervisor: Supervisor, _client: Client, message: dict[str, Any], _fds: list[int]) -> None:
    """Containers that go on this network are about to be started. Not answered."""
    try:
        supervisor.networks.prepare(str(message["network"]))
    except (OSError, KapelleError):
        pass  # told when the first of them is started


# by "op"; descriptors that came with a request are closed after its handler
HANDLERS: dict[str, Handler] = {
    "ping": _ping,
    "quit": _quit,
    "start": _start,
    "stop": _stop,
    "stops": _stops,
    "kill": _kill,
    "pause": _pause,
    "unpause": _unpause,
    "forget": _forget,
    "forget_network": _forget_network,
    "wait": _wait,
    "exec": _exec,
    "attach": _attach,
    "close_stdin": _close_stdin,
    "neighbours": _neighbours,
    "prepare": _prepare,
}
