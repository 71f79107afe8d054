"""debian: the base that the other recipes share. Essential packages and apt, as the official slim image has them.

What the packages' own scripts would do is written here: users, links of the merged /usr, alternatives, PAM's
common files, time zone, apt's sources.
"""

from __future__ import annotations

from kapelle.images.standins.kitchen import LEFT_OUT, Kitchen, Made

NAMES = ("debian",)
BASE = True
PACKAGES = ("usr-is-merged", "apt")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NUMBERS = {"12": "bookworm", "13": "trixie"}
OLD, NEW = "bookworm", "trixie"
OFFERS = tuple((number, f"Debian {name}") for number, name in NUMBERS.items())

_PAM = {
    "auth": "auth\t[success=1 default=ignore]\tpam_unix.so nullok\nauth\trequisite\tpam_deny.so\n"
    "auth\trequired\tpam_permit.so\n",
    "account": "account\t[success=1 new_authtok_reqd=done default=ignore]\tpam_unix.so\n"
    "account\trequisite\tpam_deny.so\naccount\trequired\tpam_permit.so\n",
    "password": "password\t[success=1 default=ignore]\tpam_unix.so obscure yescrypt\npassword\trequisite\tpam_deny.so\n"
    "password\trequired\tpam_permit.so\n",
    "session": "session\t[default=1]\tpam_permit.so\nsession\trequisite\tpam_deny.so\n"
    "session\trequired\tpam_permit.so\nsession\trequired\tpam_unix.so\n",
}


def variants(tag: str) -> tuple[str, ...]:
    """The release. Tags that name none of ours (latest, stable) get Debian 12, the base the others share."""
    words = tag.lower().split("-")
    found = next((w for w in words if w in NUMBERS.values()), "") or NUMBERS.get(words[0].split(".")[0], "")
    return (found or (NEW if words[0] in ("testing", "sid", "unstable", "forky") else OLD),)


def release(chosen: str) -> str:
    return chosen


def unmet(tag: str, version: str) -> str:
    """What the tag names that isn't given, in words; "" if the tag is met."""
    word = tag.lower().split("-")[0]
    if word in ("latest", "stable", "slim", *NUMBERS.values()) or word.split(".")[0] in NUMBERS:
        return ""
    return tag


def build(kitchen: Kitchen, chosen: str) -> Made:
    """The top of a debian image: nothing over the base but its settings."""
    found = kitchen.archive(chosen)
    return Made({"Env": [PATH], "Cmd": ["bash"]}, "Debian", found.point or found.version)


def base(kitchen: Kitchen) -> None:
    """Fill an empty layer with the release's base."""
    tree, found = kitchen.tree, kitchen.archive(kitchen.release)
    tree.directory("", 0o755)
    for name in ("bin", "sbin", "lib", *(("lib64",) if kitchen.architecture == "amd64" else ())):
        tree.directory(f"usr/{name}")
        tree.link(name, f"usr/{name}")
    for name in ("run", "lock"):  # base-files has directories there, which its script makes links
        tree.link(f"var/{name}", "/run" if name == "run" else "/run/lock")
    _dpkg(kitchen)
    kitchen.install([*PACKAGES, *(n for n in found.base() if n != "usrmerge")])
    _users(kitchen)
    _etc(kitchen)
    _apt(kitchen)
    kitchen.alternative("awk", "/usr/bin/awk", "/usr/bin/mawk", 5)
    kitchen.alternative("nawk", "/usr/bin/nawk", "/usr/bin/mawk", 5)
    kitchen.alternative("pager", "/usr/bin/pager", "/usr/bin/more", 50)
    kitchen.alternative("which", "/usr/bin/which", "/usr/bin/which.debianutils", 0)
    kitchen.alternative("rmt", "/usr/sbin/rmt", "/usr/sbin/rmt-tar", 50)
    kitchen.script("usr/local/bin/gosu", "gosu.sh")


def _dpkg(kitchen: Kitchen) -> None:
    tree = kitchen.tree
    for name in ("available", "diversions", "statoverride", "status", "triggers/File", "triggers/Unincorp"):
        tree.write(f"var/lib/dpkg/{name}", "")
    for name in ("info", "alternatives", "parts", "updates"):
        tree.directory(f"var/lib/dpkg/{name}")
    tree.write("var/lib/dpkg/info/format", "1\n")
    tree.write("var/lib/dpkg/arch", f"{kitchen.architecture}\n")
    rows = "".join(f"path-exclude {p}*\n" for p in LEFT_OUT)
    tree.write("etc/dpkg/dpkg.cfg.d/slim", f"{rows}path-include /usr/share/doc/*/copyright\n")
    tree.write("etc/dpkg/dpkg.cfg.d/unsafe-io", "force-unsafe-io\n")


def _users(kitchen: Kitchen) -> None:
    tree = kitchen.tree
    passwd = tree.read("usr/share/base-passwd/passwd.master")
    group = tree.read("usr/share/base-passwd/group.master")
    passwd = passwd.replace(":*:", ":x:").replace("root:x:0:0:root:/root:", "root:x:0:0:root:/root:")
    tree.write("etc/passwd", passwd)
    tree.write("etc/group", group.replace(":*:", ":x:"))
    days = int(kitchen.date) // 86400
    names = [row.split(":")[0] for row in passwd.splitlines() if row]
    tree.write("etc/shadow", "".join(f"{n}:*:{days}:0:99999:7:::\n" for n in names), 0o640, 0, 42)
    groups = [row.split(":")[0] for row in group.splitlines() if row]
    tree.write("etc/gshadow", "".join(f"{n}:*::\n" for n in groups), 0o640, 0, 42)
    kitchen.user("_apt", 100 if kitchen.release == OLD else 42, 65534, "/nonexistent")
    for name in ("subuid", "subgid"):
        tree.write(f"etc/{name}", "")


def _etc(kitchen: Kitchen) -> None:
    tree = kitchen.tree
    for source, target in (
        ("usr/share/base-files/dot.bashrc", "root/.bashrc"), ("usr/share/base-files/dot.profile", "root/.profile"),
        ("usr/share/base-files/profile", "etc/profile"), ("usr/share/base-files/motd", "etc/motd"),
        ("usr/share/libc-bin/nsswitch.conf", "etc/nsswitch.conf"),
        ("usr/share/adduser/adduser.conf", "etc/adduser.conf"),
    ):  # fmt: skip
        text = tree.read(source)
        if text and not tree.exists(target):
            tree.write(target, text)
    if not tree.exists("etc/nsswitch.conf"):
        tree.write("etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n")
    for kind, rows in _PAM.items():
        tree.write(f"etc/pam.d/common-{kind}", rows)
    tree.write("etc/pam.d/common-session-noninteractive", _PAM["session"])
    tree.write("etc/shells", "".join(f"{s}\n" for s in ("/bin/sh", "/bin/bash", "/bin/rbash", "/bin/dash")))
    tree.write("etc/timezone", "Etc/UTC\n")
    tree.link("etc/localtime", "/usr/share/zoneinfo/Etc/UTC")
    tree.write("etc/hostname", "localhost\n")
    tree.write("etc/environment", "")
    for path, mode, gid in (
        ("mnt", 0o755, 0), ("srv", 0o755, 0), ("opt", 0o755, 0), ("media", 0o755, 0), ("proc", 0o555, 0),
        ("sys", 0o555, 0), ("dev", 0o755, 0), ("run/lock", 0o1777, 0), ("tmp", 0o1777, 0), ("var/tmp", 0o1777, 0),
        ("var/local", 0o2775, 50), ("var/mail", 0o2775, 8), ("var/opt", 0o755, 0), ("root", 0o700, 0),
        ("usr/local/bin", 0o755, 0), ("usr/local/sbin", 0o755, 0), ("usr/local/lib", 0o755, 0),
        ("usr/local/etc", 0o755, 0), ("usr/local/share", 0o755, 0), ("var/cache/debconf", 0o755, 0),
    ):  # fmt: skip
        tree.directory(path, mode, 0, gid)
    if not tree.exists("var/spool/mail"):
        tree.link("var/spool/mail", "../mail")
    for name in ("lastlog", "faillog"):
        tree.write(f"var/log/{name}", "", 0o664, 0, 43)
    tree.write("var/log/wtmp", "", 0o664, 0, 43)
    tree.write("var/log/btmp", "", 0o660, 0, 43)


def _apt(kitchen: Kitchen) -> None:
    tree, found = kitchen.tree, kitchen.archive(kitchen.release)
    rows = [
        f"Types: deb\nURIs: {s.mirror}\nSuites: {s.name}\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        for s in found.suites
    ]
    tree.write("etc/apt/sources.list.d/debian.sources", "\n".join(rows))
    tree.write(
        "etc/apt/apt.conf.d/image",
        'APT::AutoRemove::SuggestsImportant "false";\nAcquire::Languages "none";\nAcquire::GzipIndexes "true";\n'
        'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };\n',
    )
    tree.write(
        "usr/sbin/policy-rc.d", "#!/bin/sh\n# no service is started while packages are installed\nexit 101\n", 0o755
    )
    for path in ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):
        tree.directory(path, 0o700, 100 if kitchen.release == OLD else 42, 0)
