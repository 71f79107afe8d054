"""A plain tree → YAML text as the reference's writer lays it out: two spaces, lists indented, known keys in its order.

Own code because start-up time is a feature and PyYAML's representers take most of `config`'s time; scalars that are
not plainly plain are still written by libyaml.
"""

from __future__ import annotations

import re
from functools import cmp_to_key

from kapelle.compose.keys import ROOT, Node
from kapelle.compose.scalars import float_text, resolve
from kapelle.light import Any

_HOOK = "command image user privileged working_dir environment per_replica"
_UPDATE = "parallelism delay failure_action monitor max_failure_ratio order"
_LIMITS = "cpus memory pids devices generic_resources"
_FILE = "name file environment content external labels driver driver_opts template_driver"
_GRANT = "source target uid gid mode"
_REQUEST = "capabilities driver count device_ids options"

# The order of keys where it is not alphabetical, by key path.
_ORDERS = {
    "": "name services networks volumes secrets configs models",
    "services.*": (
        "profiles annotations attach build develop blkio_config cap_add cap_drop cgroup_parent cgroup cpu_count "
        "cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpus cpuset cpu_shares command configs "
        "container_name credential_spec depends_on deploy device_cgroup_rules devices dns dns_opt dns_search "
        "domainname entrypoint provider environment env_file expose extends external_links extra_hosts group_add gpus "
        "hostname healthcheck image init ipc isolation labels label_file links logging mem_limit mem_reservation "
        "memswap_limit mem_swappiness mac_address models network_mode networks oom_kill_disable oom_score_adj pid "
        "pids_limit platform ports privileged pull_policy read_only restart runtime scale secrets security_opt "
        "shm_size stdin_open stop_grace_period stop_signal storage_opt sysctls tmpfs tty ulimits use_api_socket user "
        "userns_mode uts volumes volumes_from working_dir pre_start post_start pre_stop"
    ),
    "services.*.provider": "type options",
    "services.*.blkio_config": (
        "weight weight_device device_read_bps device_read_iops device_write_bps device_write_iops"
    ),
    "services.*.devices[]": "source target permissions",
    "services.*.deploy": (
        "mode replicas labels update_config rollback_config resources restart_policy placement endpoint_mode"
    ),
    "services.*.deploy.update_config": _UPDATE,
    "services.*.deploy.rollback_config": _UPDATE,
    "services.*.deploy.resources.limits": _LIMITS,
    "services.*.deploy.resources.reservations": _LIMITS,
    "services.*.deploy.resources.reservations.devices[]": _REQUEST,
    "services.*.deploy.placement": "constraints preferences max_replicas_per_node",
    "services.*.gpus[]": _REQUEST,
    "services.*.ports[]": "name mode host_ip target published protocol app_protocol",
    "services.*.volumes[]": "type source target read_only consistency bind volume tmpfs image",
    "services.*.volumes[].bind": "selinux propagation create_host_path recursive",
    "services.*.volumes[].tmpfs": "size mode",
    "services.*.configs[]": _GRANT,
    "services.*.secrets[]": _GRANT,
    "services.*.build.secrets[]": _GRANT,
    "services.*.ulimits.*": "single soft hard",
    "services.*.build.ulimits.*": "single soft hard",
    "services.*.env_file[]": "path required format",
    "services.*.depends_on.*": "condition restart required",
    "services.*.build": (
        "context dockerfile dockerfile_inline entitlements args provenance sbom ssh labels cache_from cache_to "
        "no_cache no_cache_filter additional_contexts pull extra_hosts isolation network target secrets shm_size tags "
        "ulimits platforms privileged"
    ),
    "services.*.develop.watch[]": "path action target exec include ignore initial_sync",
    "services.*.develop.watch[].exec": _HOOK,
    "services.*.pre_start[]": _HOOK,
    "services.*.post_start[]": _HOOK,
    "services.*.pre_stop[]": _HOOK,
    "services.*.healthcheck": "test timeout interval retries start_period start_interval disable",
    "networks.*": "name driver driver_opts ipam external internal attachable labels enable_ipv4 enable_ipv6",
    "networks.*.ipam": "driver config options",
    "networks.*.ipam.config[]": "subnet gateway ip_range aux_addresses",
    "volumes.*": "name driver driver_opts external labels",
    "secrets.*": _FILE,
    "configs.*": _FILE,
    "models.*": "name model context_size runtime_flags",
}

_PLAIN = re.compile(r"[A-Za-z_/$][\w/.@%+=$,;()-]*(?::[\w/.@%+=$,;()-]+)*", re.ASCII)
_QUOTABLE = re.compile(r"[\w /.@%+=,;:()~-]*", re.ASCII)
_WORDS = frozenset("y yes n no on off true false null".split())  # these are quoted, whatever their case
_TAB = "\ue000"  # stands for tabs, which libyaml writes in quotes only and the reference in blocks too
_SIXTIES = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")


def emit(tree: dict[str, Any], *, ordered: bool = True) -> str:
    """The YAML text of a tree of dicts, lists and scalars. Not `ordered`: all keys by the alphabet."""
    writer = _Writer()
    writer.mapping(tree, ROOT if ordered else None, "")
    return "".join(writer.out)


def in_order(tree: dict[str, Any]) -> dict[str, Any]:
    """The same tree with its keys in the reference's order, where that is not the alphabet's: for JSON."""
    orders = _orders()

    def arranged(value: Any, node: Node | None) -> Any:
        if isinstance(value, dict):
            order = orders.get(node, {}) if node is not None else {}
            keys = sorted(value, key=lambda k: (order.get(k, 1000), k))
            return {k: arranged(value[k], node.child(k) if node is not None else None) for k in keys}
        if isinstance(value, list):
            return [arranged(v, node.item if node is not None else None) for v in value]
        return value

    return {k: arranged(tree[k], ROOT.child(k)) for k in sorted(tree)}


def _orders() -> dict[Node, dict[str, int]]:
    return {_node(path): {k: n for n, k in enumerate(order.split())} for path, order in _ORDERS.items()}


class _Writer:
    def __init__(self) -> None:
        self.out: list[str] = []
        self.orders = _orders()
        self.known: dict[str, str] = {}

    def mapping(self, tree: dict[str, Any], node: Node | None, indent: str, first: str | None = None) -> None:
        """`first` stands before the first key instead of the indentation: a list's dash."""
        for key in self.sorted(tree, node):
            value = tree[key]
            below = node.child(key) if node is not None else None
            self.out.append((indent if first is None else first) + self.scalar(str(key)) + ":")
            first = None
            self.value(value, below, indent, indent + "  ")

    def value(self, value: Any, node: Node | None, indent: str, deeper: str) -> None:
        """What follows a key or dash."""
        if isinstance(value, dict) and value:
            self.out.append("\n")
            self.mapping(value, node, deeper)
        elif isinstance(value, list) and value:
            self.out.append("\n")
            self.sequence(value, node.item if node is not None else None, deeper)
        else:
            self.out.append(" " + self.leaf(value, indent) + "\n")

    def sequence(self, rows: list[Any], node: Node | None, indent: str) -> None:
        for item in rows:
            if isinstance(item, dict) and item:
                self.mapping(item, node, indent + "  ", indent + "- ")
            elif isinstance(item, list) and item:
                self.out.append(indent + "- ")
                start = len(self.out)
                self.sequence(item, None, indent + "  ")
                self.out[start] = self.out[start][len(indent) + 2 :]
            else:
                self.out.append(indent + "- " + self.leaf(item, indent) + "\n")

    def sorted(self, tree: dict[str, Any], node: Node | None) -> list[str]:
        order = self.orders.get(node) if node is not None else None
        keys = sorted(tree)
        if order is None:
            return keys if all(k.isalpha() for k in keys) else sorted(keys, key=cmp_to_key(_compare))
        return sorted(keys, key=lambda k: order.get(k, 1000))

    def leaf(self, value: Any, indent: str) -> str:
        if isinstance(value, str):
            if "\n" in value:
                return _written(value, "|", indent)
            return self.scalar(value)
        if value is None:
            return "null"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float):
            return float_text(value)
        return str(value) if isinstance(value, int) else "{}" if isinstance(value, dict) else "[]"

    def scalar(self, text: str) -> str:
        known = self.known.get(text)
        if known is None:
            known = self.known[text] = _scalar(text)
        return known


def _node(path: str) -> Node:
    node = ROOT
    for part in path.replace("[]", ".[]").split(".") if path else ():
        below = node.name if part == "*" else node.item if part == "[]" else node.children[part]
        assert below is not None, path
        node = below
    return node


def _scalar(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return f'"{text}"' if text.lower() in _WORDS else text
    if not isinstance(resolve(text), str) or type(resolve(text)) is not str or _SIXTIES.fullmatch(text):
        return f'"{text}"' if _QUOTABLE.fullmatch(text) else _written(text, '"')
    return _written(text, None)


def _written(text: str, style: str | None, indent: str = "") -> str:
    """One value by libyaml, which knows what may stand plain, in single or only in double quotes, or as a block."""
    import yaml

    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    events = (
        yaml.StreamStartEvent(),
        yaml.DocumentStartEvent(explicit=False),
        yaml.MappingStartEvent(None, None, True, flow_style=False),
        yaml.ScalarEvent(None, None, (True, True), "k"),
        yaml.ScalarEvent(None, None, (True, True), text.replace("\t", _TAB) if style == "|" else text, style=style),
        yaml.MappingEndEvent(),
        yaml.DocumentEndEvent(explicit=False),
        yaml.StreamEndEvent(),
    )
    written: str = yaml.emit(events, Dumper=dumper, width=2**30, allow_unicode=True)
    if written.endswith("\n...\n"):  # the end of the document, told after an open-ended block
        written = written[:-4]
    if style == "|":
        written = written.replace(_TAB, "\t")
    head, *lines = written[3:].removesuffix("\n").split("\n")
    return "\n".join([head, *(indent + line if line else line for line in lines)])


def _compare(a: str, b: str) -> int:
    """-1 or 1: letters after other signs, numbers by their value, as the reference's writer sorts the keys of maps."""
    digits = False
    for at, (x, y) in enumerate(zip(a, b, strict=False)):
        if x == y:
            digits = x.isdigit()
            continue
        if x.isalpha() and y.isalpha():
            return -1 if x < y else 1
        if x.isalpha() or y.isalpha():
            return -1 if (x if digits else y).isalpha() else 1
        number_a, end_a = _number(a, at)
        number_b, end_b = _number(b, at)
        if "0" in (x, y) and a[:at].rstrip("0")[-1:].isdigit():
            number_a, number_b = int("1" + a[at:end_a] or "1"), int("1" + b[at:end_b] or "1")
        if number_a != number_b:
            return -1 if number_a < number_b else 1
        if end_a != end_b:
            return -1 if end_a < end_b else 1
        return -1 if x < y else 1
    return len(a) - len(b)


def _number(text: str, start: int) -> tuple[int, int]:
    end = start
    while end < len(text) and text[end].isdigit() and text[end].isascii():
        end += 1
    return int(text[start:end] or "0"), end
