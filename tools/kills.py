"""kill -9 of each process of ours at each of its steps: does the next command converge, is anything lost or left?

    python tools/kills.py [--verbs up,down,…] [--roles command,supervisor,…] [--sample N] [--part I/N]
                          [--next up|down|stop|both|turns] [--home FOLDER] [--report FILE] [--only TEXT] [--together]

For each verb the points are found by running it once (killhook.py says what a point is), then it is run again for each
point with a kill there. Afterwards the next command (`up -d`, or `down`) has to succeed, and all that was promised is
looked at: containers, exit codes, lines of output, volumes; after `down` no process, mount, link, table, control
group, folder or port may be left. Exit code 1 when something was found. `--together` kills the command, the keeper and
the supervisor at once; `--next turns` follows one point with `up` and the next with `down`; `--part 0/2` takes every
second point, for two of these side by side. Needs nothing but Python and an image (a stand-in of busybox is made when
there is none).
"""

from __future__ import annotations

import argparse
import collections
import json
import mmap
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from killhook import FIRED, OFF, SLOT, SLOTS  # noqa: E402

WRITER = (
    "date +%N >> /data/starts; trap 'echo bye $$i; exit 7' TERM; "
    "i=0; while :; do i=$$((i+1)); echo line $$i; echo error $$i >&2; sleep 0.02; done"
)
FILE = """services:
  db:
    image: busybox
    command: [sh, -c, "{writer}"]
    volumes: [data:/data]
    ports: ["127.0.0.1:{port}:80"]
    stop_grace_period: 5s
  web:
    image: busybox
    command: sleep 1000
    depends_on: {{db: {{condition: service_healthy}}}}
    init: true
    configs: [{{source: text, target: /text}}]
    secrets: [text]
  job: {{image: busybox, command: [sh, -c, "echo one; echo two; exit 3"]}}
volumes: {{data: {{}}}}
configs: {{text: {{content: hello}}}}
secrets: {{text: {{environment: KILLS_TEXT}}}}
"""
HEALTH = "    healthcheck: {test: 'test -s /data/starts', interval: 1s}\n"
_PATIENCE = 30.0  # seconds for a command


class Verb(NamedTuple):
    """What is done while something is killed. Without words, something is killed first and the mending is watched."""

    words: tuple[str, ...]
    running: bool = True  # the project runs before
    first: str = ""  # this process is killed, and what comes after it is what is tried


VERBS = {
    "up": Verb(("up", "-d"), running=False),
    "recreate": Verb(("up", "-d", "--force-recreate")),
    "restart": Verb(("restart",)),
    "stop": Verb(("stop",)),
    "down": Verb(("down",)),
    "run": Verb(("run", "--rm", "-T", "job", "true")),
    "exec": Verb(("exec", "-T", "web", "true")),
    "scale": Verb(("up", "-d", "--scale", "web=2")),
    "supervisor": Verb(("exec", "-T", "web", "true"), first="kap-supervisor"),
    "keeper": Verb(("exec", "-T", "web", "true"), first="kap-keeper"),
}


class Point(NamedTuple):
    verb: str
    role: str
    place: str


class Failure(NamedTuple):
    point: Point
    following: str
    kind: str
    text: str


class Site:
    """A copy of the package with the hook in it, a home, a project."""

    def __init__(self, folder: Path, home: Path, name: str) -> None:
        self.control = folder / "copy"
        shutil.copytree(
            ROOT / "src" / "kapelle", self.control / "kapelle", ignore=shutil.ignore_patterns("__pycache__")
        )
        shutil.copy(ROOT / "tools" / "killhook.py", self.control / "kapelle" / "killhook.py")
        with open(self.control / "kapelle" / "__init__.py", "a") as f:
            f.write("\nfrom kapelle import killhook\n\nkillhook.install()\n")
        (self.control / "kap.py").write_text("import sys\n\nfrom kapelle.cli.main import main\n\nsys.exit(main())\n")
        subprocess.run([sys.executable, "-m", "compileall", "-q", str(self.control)], check=True)
        (self.control / "shared").write_bytes(bytes((SLOTS + 1) * SLOT))
        with open(self.control / "shared", "r+b") as f:
            self.shared = mmap.mmap(f.fileno(), 0)
        self.turn = 0
        self.want({"mode": ""})
        self.folder = folder / name
        self.folder.mkdir()
        self.home = home
        self.others = {p.name for p in home.glob("data/containers/*")}
        self.name = name
        self.port = 20_000 + zlib.crc32(str(folder).encode()) % 10_000
        writer = WRITER.replace('"', '\\"')
        text = FILE.format(writer=writer, port=self.port).replace("  web:\n", HEALTH + "  web:\n", 1)
        (self.folder / "compose.yaml").write_text(text)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("COMPOSE_", "KAP_")) or k == "KAP_RUNG"}
        self.environment = {**kept, "KAP_HOME": str(home), "KAP_STAND_INS": "1", "KILLS_TEXT": "hidden"}

    def want(self, wanted: dict[str, Any]) -> None:
        """Tell the hooks what to do from now on."""
        self.turn += 1
        (self.control / "wanted.json.new").write_text(json.dumps(wanted))
        os.rename(self.control / "wanted.json.new", self.control / "wanted.json")
        self.shared[FIRED] = 0
        self.shared[:8] = self.turn.to_bytes(8, "little")

    def kap(self, *words: str, hooked: bool = False) -> subprocess.CompletedProcess[str]:
        environment = self.environment if hooked else {**self.environment, OFF: "1"}
        return subprocess.run(
            [sys.executable, str(self.control / "kap.py"), *words],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=_PATIENCE,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip

    def ok(self, *words: str) -> str:
        done = self.kap(*words)
        if done.returncode:
            raise Wrong("command", f"kap {' '.join(words)}: exit {done.returncode}: {done.stderr[-600:]}")
        return done.stdout

    def points(self) -> list[tuple[str, str]]:
        """What the hooks have noted."""
        rows = [self.shared[(1 + n) * SLOT : (2 + n) * SLOT].rstrip(b"\0") for n in range(SLOTS)]
        self.shared[SLOT:] = bytes(SLOTS * SLOT)
        return sorted(
            (r.split("\t")[0], r.split("\t")[1]) for r in (row.decode("utf-8", "replace") for row in rows) if r
        )

    def starts(self) -> str:
        """What is in the volume."""
        return (self.home / "data" / "volumes" / f"{self.name}_data" / "_data" / "starts").read_text()

    def ours(self, name: str = "") -> list[int]:
        """Our processes: of that name, or all."""
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                command = Path(f"/proc/{entry}/cmdline").read_bytes()
                if str(self.control).encode() in command and name in Path(f"/proc/{entry}/comm").read_text():
                    found.append(int(entry))
            except OSError:
                continue
        return found


class Wrong(Exception):
    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.text = text


def until(condition: Callable[[], object], kind: str, what: Callable[[], str], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Wrong(kind, what())
        time.sleep(0.02)


def states(site: Site) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in site.ok("ps", "-a", "--format", "json").splitlines()]
    return {row["Name"]: row for row in rows}


def check_running(site: Site) -> None:
    """What the file asks for is there, and works."""
    names = {f"{site.name}-{s}-1" for s in ("db", "web", "job")}

    def good() -> bool:
        there = states(site)
        return (
            set(there) == names
            and [there[f"{site.name}-{s}-1"]["State"] for s in ("db", "web", "job")] == ["running", "running", "exited"]
            and there[f"{site.name}-job-1"]["ExitCode"] == 3
        )

    until(good, "containers", lambda: str({n: (r["State"], r["ExitCode"]) for n, r in states(site).items()}))
    told = site.ok("exec", "-T", "web", "sh", "-c", "cat /text /run/secrets/text; nslookup db 127.0.0.11")
    if "hellohidden" not in told or ("172." not in told and "10." not in told and "192." not in told):
        raise Wrong("network or files", told)


def check_lines(site: Site) -> None:
    """Each stream's numbers follow one another, beginning anew with a run; a run that ended by itself has its last."""
    told = site.ok("logs", "--no-log-prefix", "db").splitlines()
    for word in ("line", "error"):
        last = 0
        for line in told:
            found = re.fullmatch(rf"{word} (\d+)", line)
            if found:
                if int(found[1]) not in (last + 1, 1):
                    raise Wrong("lines", f"{word} {found[1]} follows {last}")
                last = int(found[1])
    last = 0
    for line in told:
        if found := re.fullmatch(r"line (\d+)", line):
            last = int(found[1])
        elif found := re.fullmatch(r"bye (\d+)", line):
            if int(found[1]) - last not in (0, 1):
                raise Wrong("lines", f"{line} follows line {last}")
        elif not re.fullmatch(r"error \d+", line):
            raise Wrong("lines", f"what is {line!r}?")
    job = site.ok("logs", "--no-log-prefix", "job").splitlines()
    if job != ["one", "two"] * (len(job) // 2):
        raise Wrong("lines", f"of the job: {job}")


def check_stopped(site: Site) -> None:
    there = states(site)
    told = {n: (r["State"], r["ExitCode"]) for n, r in there.items()}
    wanted = {f"{site.name}-db-1": ("exited", 7), f"{site.name}-job-1": ("exited", 3)}
    if any(told.get(n) != w for n, w in wanted.items()) or told.get(f"{site.name}-web-1", ("",))[0] != "exited":
        raise Wrong("exit codes", str(told))
    check_lines(site)


def left(site: Site) -> list[str]:
    """What is there of the project though it was taken down."""
    found = [f"process {p}" for p in site.ours()]
    mark = f"{zlib.crc32((os.path.realpath(f'{site.home}/run/network') + chr(0) + site.name).encode()):08x}"
    found += [f"link {n}" for n in os.listdir("/sys/class/net") if mark in n]
    if os.geteuid() == 0:
        sys.path.insert(0, str(ROOT / "src"))
        from kapelle.linux import nft

        with nft.open_nft() as netlink:
            found += [f"table {n}" for _, n in nft.tables(netlink) if mark in n]
            found += [f"rule {r.table} {r.comment}" for r in nft.rules(netlink) if mark in r.comment]
    with open("/proc/self/mountinfo") as f:
        found += [f"mount {line.split()[4]}" for line in f if str(site.home) in line.split()[4]]
    for base, folders, _ in os.walk("/sys/fs/cgroup"):
        found += [f"group {base}/{n}" for n in folders if n.startswith(f"kapelle-{site.name}-")]
    found += [str(p) for p in site.home.glob(f"state/projects/{site.name}/containers/*")]
    found += [str(p) for p in site.home.glob("data/containers/*") if p.name not in site.others]
    for pattern in ("state/networks/*.json", "data/volumes/*"):
        found += [str(p) for p in site.home.glob(pattern) if site.name in p.name]
    for path in site.home.glob(f"run/projects/{site.name}/*"):
        if path.name not in ("spawn.lock", "keeper.log", "output"):
            found.append(str(path))
    for pattern in ("state/*/*.tmp", f"state/projects/{site.name}/**/*.tmp", "data/volumes/*.tmp"):
        found += [str(p) for p in site.home.glob(pattern)]
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", site.port))
        except OSError:
            found.append(f"port {site.port}")
    return found


def take_down(site: Site, *words: str) -> None:
    site.ok("down", *words)
    rest: list[str] = []

    def nothing() -> bool:
        rest[:] = left(site)
        return not [r for r in rest if words or "/volumes/" not in r]

    until(nothing, "left behind", lambda: "; ".join(rest), 3.0)


def begin(site: Site, verb: Verb) -> None:
    """The state in which the verb is tried."""
    if verb.running:
        site.ok("up", "-d")
        time.sleep(0.05)  # the job has written its lines and ended, or soon will


def act(site: Site, verb: Verb) -> subprocess.CompletedProcess[str]:
    if verb.first:
        for pid in site.ours(verb.first):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    done = site.kap(*verb.words, hooked=True)
    text = done.stdout + done.stderr
    if "Traceback" in text or "internal error" in text:
        raise Wrong("traceback", text[-800:])
    return done


def record(site: Site, name: str) -> list[Point]:
    """The points that a verb comes by."""
    verb = VERBS[name]
    begin(site, verb)
    site.want({"mode": "record"})
    act(site, verb)
    time.sleep(0.3)
    site.want({"mode": ""})
    found = [Point(name, *row) for row in site.points()]
    take_down(site, "-v", "-t", "0")
    return found


def attempt(site: Site, point: Point, following: str, victims: list[str]) -> bool:
    """One kill, and what comes after it; False when the point was not reached. Raises Wrong."""
    verb = VERBS[point.verb]
    begin(site, verb)
    if verb.running:
        before = site.starts()
    wanted = {"mode": "kill", "role": point.role, "place": point.place, "count": 1, "victims": victims}
    site.want(wanted)
    done = act(site, verb)
    reached = bool(site.shared[FIRED])
    site.want({"mode": ""})
    failed = done.returncode not in (0, -9) and point.role in ("keeper", "supervisor") and not victims
    if failed and point.verb not in ("exec", "supervisor", "keeper"):
        raise Wrong("the command failed", f"exit {done.returncode}: {done.stderr[-600:]}")
    if following == "up":
        site.ok("up", "-d")
        check_running(site)
        if verb.running and not site.starts().startswith(before):
            raise Wrong("volume", "its content has changed")
        site.ok("stop")
        check_stopped(site)
    elif following == "stop":
        site.ok("stop")
        check_stopped(site)
    take_down(site)
    log = site.home / "run" / "projects" / site.name / "keeper.log"
    if log.exists() and "Traceback" in log.read_text():
        text = log.read_text()
        log.unlink()
        raise Wrong("traceback", text[-1500:])
    if not verb.running:
        take_down(site, "-v")
    return reached


def mend(site: Site) -> None:
    """After a failure: everything away, by force."""
    site.want({"mode": ""})
    for pid in site.ours():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    time.sleep(0.2)
    try:
        site.kap("down", "-v", "-t", "0", "--remove-orphans")
    except subprocess.TimeoutExpired:
        pass
    for base, folders, _ in os.walk("/sys/fs/cgroup"):
        for group in [f"{base}/{n}" for n in folders if n.startswith(f"kapelle-{site.name}-")]:
            for pid in Path(f"{group}/cgroup.procs").read_text().split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.05)
            try:
                os.rmdir(group)
            except OSError:
                pass
    for path in ("state/projects", "run/projects"):
        shutil.rmtree(site.home / path / site.name, ignore_errors=True)
    for path in site.home.glob("data/containers/*"):
        if path.name not in site.others:
            shutil.rmtree(path, ignore_errors=True)
    for path in [*site.home.glob("state/networks/*"), *site.home.glob("state/networks/.*.lock")]:
        if site.name in path.name:
            path.unlink()


def take_away(site: Site) -> None:
    try:
        mend(site)
    except (OSError, subprocess.TimeoutExpired) as e:
        print(f"what is left: {e}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verbs", default=",".join(VERBS))
    parser.add_argument("--roles", default="command,supervisor,keeper,launcher,join")
    parser.add_argument("--sample", type=int, default=0, help="so many points of each verb and role")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--next", default="both", choices=("up", "down", "stop", "both", "turns"))
    parser.add_argument("--part", default="0/1", help="I/N: every Nth point, beginning with the Ith")
    parser.add_argument("--only", default="", help="points whose name has this in it")
    parser.add_argument("--together", action="store_true")
    parser.add_argument("--home", default="")
    parser.add_argument("--report", default="")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    victims = ["kap-keeper", "kap-supervisor", "command"] if options.together else []
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="kap-kills-") as name:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        site = Site(Path(name), Path(options.home or f"{name}/home"), f"kills{os.getpid()}")
        failures, kills, points, missed = [], 0, 0, 0
        table: dict[tuple[str, str], list[int]] = collections.defaultdict(lambda: [0, 0, 0])
        try:
            for verb in options.verbs.split(","):
                found = [
                    p for p in record(site, verb) if p.role in options.roles.split(",") and options.only in p.place
                ]
                if options.sample:
                    by_role = {r: [p for p in found if p.role == r] for r in options.roles.split(",")}
                    found = [
                        p for row in by_role.values() for p in sorted(chance.sample(row, min(options.sample, len(row))))
                    ]
                part, parts = map(int, options.part.split("/"))
                found = found[part::parts]
                points += len(found)
                for point in found:
                    if options.list:
                        print(*point, sep="\t")
                        continue
                    row = table[point.verb, point.role]
                    row[0] += 1
                    print(
                        f"{time.strftime('%H:%M:%S')} {point.verb} {row[0]} {point.role} {point.place}", file=sys.stderr
                    )
                    for following in _following(options.next, row[0]):
                        try:
                            reached = attempt(site, point, following, victims)
                        except (Wrong, subprocess.TimeoutExpired) as e:
                            reached = True
                            kind = e.kind if isinstance(e, Wrong) else "hangs"
                            failures.append(Failure(point, following, kind, e.text if isinstance(e, Wrong) else str(e)))
                            row[2] += 1
                            print(
                                f"FAILED {point.verb} {point.role} {point.place} then {following}: {kind}", flush=True
                            )
                            print(f"       {failures[-1].text}", flush=True)
                            log = site.home / "run" / "projects" / site.name / "keeper.log"
                            if log.exists() and log.stat().st_size:
                                print(f"       keeper.log: {log.read_text()[-1500:]}", flush=True)
                            mend(site)
                        kills += reached
                        missed += not reached
                        row[1] += reached
        except KeyboardInterrupt:
            print("stopped; so far:")
            take_away(site)
        report(table, failures, points, kills, missed, options.report)
    return bool(failures)


def _following(which: str, number: int) -> tuple[str, ...]:
    if which == "turns":
        return ("up", "down")[number % 2 :][:1]
    return ("up", "down") if which == "both" else (which,)


def report(
    table: dict[tuple[str, str], list[int]], failures: list[Failure], points: int, kills: int, missed: int, path: str
) -> None:
    print(f"\n{'verb':<12}{'process':<12}{'points':>8}{'kills':>8}{'failures':>10}")
    for (verb, role), row in table.items():
        print(f"{verb:<12}{role:<12}{row[0]:>8}{row[1]:>8}{row[2]:>10}")
    print(f"{points} points, {kills} kills ({missed} times the point was not come by), {len(failures)} failures")
    for kind, number in collections.Counter(f.kind for f in failures).most_common():
        print(f"  {number:>5}  {kind}")
    if path:
        rows = [{**f._asdict(), "point": f.point._asdict()} for f in failures]
        Path(path).write_text(json.dumps({"points": points, "kills": kills, "failures": rows}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
