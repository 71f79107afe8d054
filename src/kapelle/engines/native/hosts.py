"""Pure: the text of a container's /etc/hosts, /etc/hostname and /etc/resolv.conf."""

from __future__ import annotations

RESOLVER = "127.0.0.11"


def hosts(hostname: str, domainname: str, addresses: tuple[str, ...], extra: tuple[tuple[str, str], ...]) -> str:
    """/etc/hosts (hosts(5)): loopback, extra_hosts, then the container's own name on each address."""
    lines = [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::\tip6-localnet",
        "ff00::\tip6-mcastprefix",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
    ]
    lines += [f"{address}\t{name}" for name, address in extra]
    names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    lines += [f"{address.partition('/')[0]}\t{names}" for address in addresses if address]
    return "\n".join(lines) + "\n"


def resolv_conf(search: tuple[str, ...], options: tuple[str, ...], host: str) -> str:
    """/etc/resolv.conf (resolv.conf(5)) that asks our own server; search and options the host's unless given."""
    kept_search, kept_options = search, options
    for line in host.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] in ("search", "domain") and not search:
            kept_search = tuple(words[1:])
        elif len(words) > 1 and words[0] == "options" and not options:
            kept_options = tuple(words[1:])
    lines = [f"nameserver {RESOLVER}"]
    if kept_search and kept_search != (".",):
        lines.append("search " + " ".join(kept_search))
    if not any(o.startswith("ndots:") for o in kept_options):
        kept_options = (*kept_options, "ndots:0")
    lines.append("options " + " ".join(kept_options))
    return "\n".join(lines) + "\n"


def extra_hosts(rows: list[list[str]], gateway: str) -> tuple[tuple[str, str], ...]:
    """extra_hosts with `host-gateway` resolved, and host.docker.internal as Docker Desktop has it."""
    result = [(name, gateway if address == "host-gateway" else address) for name, address in rows]
    result = [(name, address) for name, address in result if address]  # without a network there is no gateway
    if gateway and not any(name == "host.docker.internal" for name, _ in result):
        result.append(("host.docker.internal", gateway))
    return tuple(result)
