"""Pure: the short syntaxes of ports, volumes, devices and hosts → their long forms. Raise ValueError in words."""

from __future__ import annotations

from kapelle.light import Any

_QUOTING = frozenset("\"'\\")
_PROPAGATIONS = ("rprivate", "private", "rshared", "shared", "rslave", "slave")


def ports(text: str) -> list[dict[str, Any]]:
    """`[[IP:][HOST[-END]]:]CONTAINER[-END][/PROTOCOL]` → one entry per container port."""
    rest, slash, protocol = text.partition("/")
    if slash and protocol.lower() not in ("tcp", "udp", "sctp"):
        raise ValueError(f"Invalid proto: {protocol}")
    protocol = protocol.lower() or "tcp"
    host, published = "", ""
    if rest.startswith("["):
        host, bracket, rest = rest[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise ValueError(f"Invalid ip address: {text}")
        published, _, target = rest[1:].rpartition(":")
    else:
        parts = rest.rsplit(":", 2)
        target = parts[-1]
        published = parts[-2] if len(parts) > 1 else ""
        host = parts[0] if len(parts) > 2 else ""
    if host and not is_address(host):
        raise ValueError(f"Invalid ip address: {host}")
    first, last = _range(target, "containerPort")
    rows = []
    if published:
        low, high = _range(published, "hostPort")
        if high - low != last - first and first != last:
            raise ValueError(f"invalid ranges specified for container and host Ports: {target} and {published}")
        for number in range(first, last + 1):
            own = published if first == last else str(low + number - first)
            rows.append(_port(number, own if low != high else str(low), protocol, host))
        return rows
    return [_port(number, "", protocol, host) for number in range(first, last + 1)]


def _port(target: int, published: str, protocol: str, host: str) -> dict[str, Any]:
    row: dict[str, Any] = {"mode": "ingress"}
    if host:
        row["host_ip"] = host
    row["target"] = target
    if published:
        row["published"] = published
    row["protocol"] = protocol
    return row


def _range(text: str, what: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if not first.isdigit() or (dash and not last.isdigit()):
        raise ValueError(f"Invalid {what}: {text}" if text else "No port specified: <empty>")
    low, high = int(first), int(last or first)
    if not 0 <= low <= high <= 65535:
        raise ValueError(f"Invalid range specified for {what}: {text}" if high < low else f"Invalid {what}: {text}")
    return low, high


def is_address(text: str) -> bool:
    """An IPv4 or IPv6 address?"""
    from kapelle.light import socket

    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
            return True
        except OSError:
            continue
    return False


def mount(text: str) -> dict[str, Any]:
    """`[SOURCE:]TARGET[:OPTIONS]` of `volumes`."""
    parts = _split_drive(text)
    if len(text) <= 2:
        return {"type": "volume", "target": text}  # as the reference reads what is too short to have parts
    if len(parts) == 1:
        return {"type": "volume", "target": parts[0], "volume": {}}
    if len(parts) > 3 or not parts[0] or not parts[1]:
        raise ValueError(
            f"invalid spec: {text}: {'too many colons' if len(parts) > 3 else 'empty section between colons'}"
        )
    source, target = parts[0], parts[1]
    bind = source[0] in "./~" or (source[1:2] == ":" and source[0].isalpha())
    row: dict[str, Any] = {"type": "bind" if bind else "volume", "source": source, "target": target}
    if bind:
        row["bind"] = {"create_host_path": True}
    else:
        row["volume"] = {}
    for option in parts[2].split(",") if len(parts) > 2 else ():
        _option(row, option)
    return row


def _option(row: dict[str, Any], option: str) -> None:
    if option == "ro":
        row["read_only"] = True
    elif option in ("z", "Z"):
        row.setdefault("bind", {})["selinux"] = option
    elif option == "nocopy":
        row.setdefault("volume", {})["nocopy"] = True
    elif option in _PROPAGATIONS:
        row.setdefault("bind", {})["propagation"] = option
    elif option not in ("rw", "", "cached", "delegated", "consistent"):
        # Compose takes any word here, and so do we; the engine says what it can't honour
        row.setdefault("x-kap-options", []).append(option)


def _split_drive(text: str) -> list[str]:
    """Parts at colons; a single letter before a colon is a Windows drive, as the reference reads it."""
    parts = text.split(":")
    joined: list[str] = []
    at = 0
    while at < len(parts):
        part = parts[at]
        if len(part) == 1 and part.isalpha() and at + 1 < len(parts):
            joined.append(f"{part}:{parts[at + 1]}")
            at += 2
        else:
            joined.append(part)
            at += 1
    return joined


def device(text: str) -> dict[str, Any]:
    """`HOST[:CONTAINER[:PERMISSIONS]]`, or a CDI name."""
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise ValueError(f"confusing device mapping, please use long syntax: {text}")
    source = parts[0]
    target = parts[1] if len(parts) > 1 and parts[1] else source
    return {"source": source, "target": target, "permissions": parts[2] if len(parts) > 2 else "rwm"}


def host(text: str) -> str:
    """`HOST=IP` of `HOST=IP` or `HOST:IP`."""
    separator = "=" if "=" in text else ":"
    name, found, address = text.partition(separator)
    if not found or not name:
        raise ValueError(f"invalid additional host, missing IP: {text}")
    return f"{name}={address.strip('[]') if address.startswith('[') else address}"


def words(text: str) -> list[str]:
    """A command as a shell would split it, without a shell: quotes and backslashes."""
    if text.isascii() and text.isprintable() and not _QUOTING & set(text):
        return text.split()
    import shlex

    try:
        return shlex.split(text)
    except ValueError as e:
        raise ValueError(f"invalid command line string: {e}") from None
