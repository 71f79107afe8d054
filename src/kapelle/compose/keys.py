"""THE table: one row per key path of a compose file.

`path kind merge since`. A path's `*` is a free name, `[]` a list item. The kind says which values are allowed
and what their canonical form is (`KINDS` in casts, lists, shapes and canonical); the merge rule, where it differs
from the kind's own (maps key by key, lists appended, scalars replaced), how a later file changes an earlier one.
To add a key: docs/adding-a-key.md.
Source: the compose specification's schema and observation of docker compose 2.40.
"""

from __future__ import annotations

from kapelle.light import NamedTuple


class Key(NamedTuple):
    path: str
    kind: str
    merge: str = ""  # "", replace, unique, target, path, port, append, hosts, subnet, logging
    since: str = ""  # release of Compose that brought it


_TABLE = """
version string -
name string -
include include - 2.20
include[].path words - 2.20
include[].env_file words - 2.20
include[].project_directory string - 2.20
services map -
services.*.develop map - 2.22
services.*.develop.watch maps - 2.22
services.*.develop.watch[].ignore words - 2.22
services.*.develop.watch[].include words - 2.22
services.*.develop.watch[].path string - 2.22
services.*.develop.watch[].action one:rebuild|sync|restart|sync+restart|sync+exec - 2.22
services.*.develop.watch[].target string - 2.22
services.*.develop.watch[].exec map - 2.32
services.*.develop.watch[].exec.command command - 2.32
services.*.develop.watch[].exec.user string - 2.32
services.*.develop.watch[].exec.privileged boolean - 2.32
services.*.develop.watch[].exec.working_dir string - 2.32
services.*.develop.watch[].exec.environment pairs - 2.32
services.*.develop.watch[].initial_sync boolean - 2.22
services.*.deploy map -
services.*.deploy.mode string -
services.*.deploy.endpoint_mode string -
services.*.deploy.replicas integer -
services.*.deploy.labels pairs -
services.*.deploy.rollback_config map -
services.*.deploy.rollback_config.parallelism natural -
services.*.deploy.rollback_config.delay duration -
services.*.deploy.rollback_config.failure_action string -
services.*.deploy.rollback_config.monitor duration -
services.*.deploy.rollback_config.max_failure_ratio number -
services.*.deploy.rollback_config.order one:start-first|stop-first -
services.*.deploy.update_config map -
services.*.deploy.update_config.parallelism natural -
services.*.deploy.update_config.delay duration -
services.*.deploy.update_config.failure_action string -
services.*.deploy.update_config.monitor duration -
services.*.deploy.update_config.max_failure_ratio number -
services.*.deploy.update_config.order one:start-first|stop-first -
services.*.deploy.resources map -
services.*.deploy.resources.limits map -
services.*.deploy.resources.limits.cpus number -
services.*.deploy.resources.limits.memory memory -
services.*.deploy.resources.limits.pids integer -
services.*.deploy.resources.reservations map -
services.*.deploy.resources.reservations.cpus number -
services.*.deploy.resources.reservations.memory memory -
services.*.deploy.resources.reservations.generic_resources maps -
services.*.deploy.resources.reservations.generic_resources[].discrete_resource_spec map -
services.*.deploy.resources.reservations.generic_resources[].discrete_resource_spec.kind string -
services.*.deploy.resources.reservations.generic_resources[].discrete_resource_spec.value rounded -
services.*.deploy.resources.reservations.devices requests -
services.*.deploy.resources.reservations.devices[].capabilities strings -
services.*.deploy.resources.reservations.devices[].count count -
services.*.deploy.resources.reservations.devices[].device_ids strings -
services.*.deploy.resources.reservations.devices[].driver string -
services.*.deploy.resources.reservations.devices[].options pairs -
services.*.deploy.restart_policy map -
services.*.deploy.restart_policy.condition string -
services.*.deploy.restart_policy.delay duration -
services.*.deploy.restart_policy.max_attempts natural -
services.*.deploy.restart_policy.window duration -
services.*.deploy.placement map -
services.*.deploy.placement.constraints strings -
services.*.deploy.placement.preferences maps -
services.*.deploy.placement.preferences[].spread string -
services.*.deploy.placement.max_replicas_per_node natural -
services.*.annotations pairs -
services.*.attach boolean - 2.20
services.*.build build -
services.*.build.context string -
services.*.build.dockerfile string -
services.*.build.dockerfile_inline string - 2.17
services.*.build.entitlements strings - 2.27
services.*.build.args pairs -
services.*.build.ssh ssh replace 2.4
services.*.build.labels pairs -
services.*.build.cache_from strings -
services.*.build.cache_to strings - 2.4
services.*.build.no_cache boolean - 2.4
services.*.build.no_cache_filter words - 5.x
services.*.build.additional_contexts pairs - 2.17
services.*.build.network string -
services.*.build.provenance switch - 2.39
services.*.build.sbom switch - 2.39
services.*.build.pull boolean - 2.4
services.*.build.target string -
services.*.build.shm_size bytes -
services.*.build.extra_hosts hosts hosts
services.*.build.isolation string -
services.*.build.privileged boolean - 2.15
services.*.build.secrets grants - 2.5
services.*.build.secrets[].source string - 2.5
services.*.build.secrets[].target string - 2.5
services.*.build.secrets[].uid string - 2.5
services.*.build.secrets[].gid string - 2.5
services.*.build.secrets[].mode mode - 2.5
services.*.build.tags strings unique 2.5.1
services.*.build.ulimits ulimits - 2.23.1
services.*.build.ulimits.*.hard integer - 2.23.1
services.*.build.ulimits.*.soft integer - 2.23.1
services.*.build.platforms strings - 2.10
services.*.blkio_config map -
services.*.blkio_config.device_read_bps maps -
services.*.blkio_config.device_read_bps[].path string -
services.*.blkio_config.device_read_bps[].rate bytes -
services.*.blkio_config.device_read_iops maps -
services.*.blkio_config.device_read_iops[].path string -
services.*.blkio_config.device_read_iops[].rate bytes -
services.*.blkio_config.device_write_bps maps -
services.*.blkio_config.device_write_bps[].path string -
services.*.blkio_config.device_write_bps[].rate bytes -
services.*.blkio_config.device_write_iops maps -
services.*.blkio_config.device_write_iops[].path string -
services.*.blkio_config.device_write_iops[].rate bytes -
services.*.blkio_config.weight whole -
services.*.blkio_config.weight_device maps -
services.*.blkio_config.weight_device[].path string -
services.*.blkio_config.weight_device[].weight whole -
services.*.cap_add strings unique
services.*.cap_drop strings unique
services.*.cgroup one:host|private - 2.15
services.*.cgroup_parent string -
services.*.command command replace
services.*.configs grants target
services.*.configs[].source string -
services.*.configs[].target string -
services.*.configs[].uid string -
services.*.configs[].gid string -
services.*.configs[].mode mode -
services.*.container_name string -
services.*.cpu_count integer -
services.*.cpu_percent integer -
services.*.cpu_shares rounded -
services.*.cpu_quota rounded -
services.*.cpu_period rounded -
services.*.cpu_rt_period rounded -
services.*.cpu_rt_runtime rounded -
services.*.cpus number -
services.*.cpuset string -
services.*.credential_spec map -
services.*.credential_spec.config string -
services.*.credential_spec.file string -
services.*.credential_spec.registry string -
services.*.depends_on named -
services.*.depends_on.*.restart boolean - 2.17
services.*.depends_on.*.required boolean - 2.20
services.*.depends_on.*.condition one:service_started|service_healthy|service_completed_successfully -
services.*.device_cgroup_rules strings -
services.*.devices devices target
services.*.devices[].source string -
services.*.devices[].target string -
services.*.devices[].permissions string -
services.*.dns words unique
services.*.dns_opt strings unique
services.*.dns_search words unique
services.*.domainname string -
services.*.entrypoint command replace
services.*.env_file env_files path
services.*.env_file[].path string -
services.*.env_file[].format string -
services.*.env_file[].required boolean -
services.*.label_file words - 2.32
services.*.environment pairs -
services.*.expose plains unique
services.*.extends extends -
services.*.extends.service string -
services.*.extends.file string -
services.*.provider map - 2.36
services.*.provider.type string - 2.36
services.*.provider.options provider - 2.36
services.*.external_links strings -
services.*.extra_hosts hosts hosts
services.*.gpus gpus - 2.30
services.*.gpus[].capabilities strings - 2.30
services.*.gpus[].count count - 2.30
services.*.gpus[].device_ids strings - 2.30
services.*.gpus[].driver string - 2.30
services.*.gpus[].options pairs - 2.30
services.*.group_add plains append
services.*.healthcheck map -
services.*.healthcheck.disable boolean -
services.*.healthcheck.interval duration -
services.*.healthcheck.retries rounded -
services.*.healthcheck.test test replace
services.*.healthcheck.timeout duration -
services.*.healthcheck.start_period duration -
services.*.healthcheck.start_interval duration - 2.20.2
services.*.hostname string -
services.*.image string -
services.*.init boolean -
services.*.ipc string -
services.*.isolation string -
services.*.labels pairs -
services.*.links strings unique
services.*.logging map logging
services.*.logging.driver string -
services.*.logging.options dict -
services.*.mac_address string - 2.23.2
services.*.mem_limit anybytes -
services.*.mem_reservation bytes -
services.*.mem_swappiness bytes -
services.*.memswap_limit anybytes -
services.*.network_mode string -
services.*.models named - 2.38
services.*.models.*.endpoint_var string - 2.38
services.*.models.*.model_var string - 2.38
services.*.networks named -
services.*.networks.*.aliases strings unique
services.*.networks.*.interface_name string - 2.36
services.*.networks.*.ipv4_address string -
services.*.networks.*.ipv6_address string -
services.*.networks.*.link_local_ips strings unique
services.*.networks.*.mac_address string -
services.*.networks.*.driver_opts dict - 2.27.1
services.*.networks.*.priority figure -
services.*.networks.*.gw_priority figure - 2.33
services.*.oom_kill_disable boolean -
services.*.oom_score_adj integer -
services.*.pid string -
services.*.pids_limit rounded -
services.*.platform string -
services.*.ports ports port
services.*.ports[].name string -
services.*.ports[].mode string -
services.*.ports[].host_ip string -
services.*.ports[].target natural -
services.*.ports[].published port -
services.*.ports[].protocol string -
services.*.ports[].app_protocol string - 2.26
services.*.pre_start maps - 5.x
services.*.pre_start[].command command - 5.x
services.*.pre_start[].image string - 5.x
services.*.pre_start[].user string - 5.x
services.*.pre_start[].privileged boolean - 5.x
services.*.pre_start[].working_dir string - 5.x
services.*.pre_start[].environment pairs - 5.x
services.*.pre_start[].per_replica boolean - 5.x
services.*.post_start maps -
services.*.post_start[].command command -
services.*.post_start[].user string -
services.*.post_start[].privileged boolean -
services.*.post_start[].working_dir string -
services.*.post_start[].environment pairs -
services.*.pre_stop maps -
services.*.pre_stop[].command command -
services.*.pre_stop[].user string -
services.*.pre_stop[].privileged boolean -
services.*.pre_stop[].working_dir string -
services.*.pre_stop[].environment pairs -
services.*.privileged boolean -
services.*.profiles strings unique
services.*.pull_policy string -
services.*.pull_refresh_after string -
services.*.read_only boolean -
services.*.restart string -
services.*.runtime string -
services.*.scale integer -
services.*.security_opt strings append
services.*.shm_size anybytes -
services.*.secrets grants target
services.*.secrets[].source string -
services.*.secrets[].target string -
services.*.secrets[].uid string -
services.*.secrets[].gid string -
services.*.secrets[].mode mode -
services.*.sysctls pairs -
services.*.stdin_open boolean -
services.*.stop_grace_period duration -
services.*.stop_signal string -
services.*.storage_opt dict -
services.*.tmpfs words unique
services.*.tty boolean -
services.*.ulimits ulimits -
services.*.ulimits.*.hard integer -
services.*.ulimits.*.soft integer -
services.*.use_api_socket boolean - 2.37.1
services.*.user string -
services.*.uts string - 2.15.1
services.*.userns_mode string -
services.*.volumes mounts target
services.*.volumes[].type one:bind|volume|tmpfs|cluster|npipe|image -
services.*.volumes[].source string -
services.*.volumes[].target string -
services.*.volumes[].read_only boolean -
services.*.volumes[].consistency string -
services.*.volumes[].bind map -
services.*.volumes[].bind.propagation string -
services.*.volumes[].bind.create_host_path boolean -
services.*.volumes[].bind.recursive one:enabled|disabled|writable|readonly -
services.*.volumes[].bind.selinux one:z|Z -
services.*.volumes[].volume map -
services.*.volumes[].volume.labels pairs -
services.*.volumes[].volume.nocopy boolean -
services.*.volumes[].volume.subpath string -
services.*.volumes[].tmpfs map -
services.*.volumes[].tmpfs.size bytes -
services.*.volumes[].tmpfs.mode figure - 2.14
services.*.volumes[].image map - 2.35
services.*.volumes[].image.subpath string - 2.35
services.*.volumes_from strings -
services.*.working_dir string -
models map - 2.38
models.*.name string - 2.38
models.*.model string - 2.38
models.*.context_size whole - 2.38
models.*.runtime_flags strings - 2.38
networks map -
networks.*.name string -
networks.*.driver string -
networks.*.driver_opts dict -
networks.*.ipam map -
networks.*.ipam.driver string -
networks.*.ipam.config maps subnet
networks.*.ipam.config[].subnet string -
networks.*.ipam.config[].ip_range string -
networks.*.ipam.config[].gateway string -
networks.*.ipam.config[].aux_addresses dict -
networks.*.ipam.options dict -
networks.*.external external -
networks.*.external.name string -
networks.*.internal boolean -
networks.*.enable_ipv4 boolean - 2.33.1
networks.*.enable_ipv6 boolean -
networks.*.attachable boolean -
networks.*.labels pairs -
volumes map -
volumes.*.name string -
volumes.*.driver string -
volumes.*.driver_opts dict -
volumes.*.external external -
volumes.*.external.name string -
volumes.*.labels pairs -
secrets map -
secrets.*.name string -
secrets.*.environment string - 2.6
secrets.*.file string -
secrets.*.external external -
secrets.*.external.name string -
secrets.*.labels pairs replace
secrets.*.driver string -
secrets.*.driver_opts dict -
secrets.*.template_driver string -
configs map -
configs.*.name string -
configs.*.content string - 2.23.1
configs.*.environment string - 2.23.1
configs.*.file string -
configs.*.external external -
configs.*.external.name string -
configs.*.labels pairs replace
configs.*.template_driver string -
"""


NULLABLE = frozenset(
    "include include[].path include[].env_file include[].project_directory services.*.develop services.*.deploy "
    "services.*.command services.*.entrypoint services.*.image services.*.develop.watch[].exec.command "
    "services.*.post_start[].command services.*.pre_stop[].command services.*.pre_start[].command".split()
)
"""Keys that may stand without a value; for all others `key:` alone is a mistake, if no earlier file gives a value."""

KEPT_ZERO = frozenset(
    "services.*.attach services.*.init services.*.scale services.*.stop_grace_period services.*.deploy.replicas "
    "services.*.deploy.update_config.parallelism services.*.deploy.rollback_config.parallelism "
    "services.*.deploy.restart_policy.delay services.*.deploy.restart_policy.max_attempts "
    "services.*.deploy.restart_policy.window services.*.healthcheck.interval services.*.healthcheck.timeout "
    "services.*.healthcheck.retries services.*.healthcheck.start_period services.*.healthcheck.start_interval "
    "services.*.depends_on.*.required services.*.develop.watch[].path services.*.develop.watch[].action "
    "services.*.env_file[].required services.*.env_file[].path services.*.blkio_config.weight_device[].weight "
    "services.*.blkio_config.weight_device[].path services.*.blkio_config.device_read_bps[].path "
    "services.*.blkio_config.device_read_bps[].rate services.*.blkio_config.device_write_bps[].path "
    "services.*.blkio_config.device_write_bps[].rate services.*.blkio_config.device_read_iops[].path "
    "services.*.blkio_config.device_read_iops[].rate services.*.blkio_config.device_write_iops[].path "
    "services.*.blkio_config.device_write_iops[].rate "
    "services.*.deploy.resources.reservations.generic_resources[].discrete_resource_spec.kind "
    "services.*.deploy.resources.reservations.generic_resources[].discrete_resource_spec.value "
    "services.*.volumes[].bind.create_host_path "
    "services.*.configs[].mode services.*.secrets[].mode services.*.build.secrets[].mode "
    "services.*.ulimits.*.soft services.*.ulimits.*.hard "
    "services.*.build.ulimits.*.soft services.*.build.ulimits.*.hard "
    "networks.*.enable_ipv4 networks.*.enable_ipv6".split()
)
"""Keys for which 0, false or "" says something else than leaving them out; all others are left out then."""

PATTERNS = {
    "services.*.container_name": "[a-zA-Z0-9][a-zA-Z0-9_.-]+",
    "services.*.pull_policy": "always|never|build|if_not_present|missing|refresh|daily|weekly|every_([0-9]+[wdhms])+",
}
"""Regular expressions that must be found somewhere in the value (as the schema has them, not anchored)."""

RANGES = {
    "services.*.cpu_count": (0, 2**63), "services.*.cpu_percent": (0, 100),
    "services.*.oom_score_adj": (-1000, 1000), "services.*.volumes[].tmpfs.size": (0, 2**63),
    "services.*.volumes[].tmpfs.mode": (0, 2**32), "services.*.healthcheck.retries": (0, 2**63),
    "services.*.blkio_config.weight": (0, 65535), "services.*.blkio_config.weight_device[].weight": (0, 65535),
}  # fmt: skip

DISTINCT = frozenset(
    "services.*.device_cgroup_rules services.*.external_links services.*.group_add services.*.security_opt "
    "services.*.volumes_from services.*.develop.watch[].ignore services.*.develop.watch[].include "
    "services.*.build.no_cache_filter services.*.gpus[].capabilities services.*.gpus[].device_ids "
    "services.*.deploy.resources.reservations.devices[].capabilities "
    "services.*.deploy.resources.reservations.devices[].device_ids "
    "services.*.deploy.resources.reservations.devices[].options services.*.gpus[].options "
    "services.*.post_start[].environment services.*.pre_stop[].environment services.*.pre_start[].environment "
    "services.*.develop.watch[].exec.environment services.*.volumes[].volume.labels "
    "volumes.*.labels secrets.*.labels configs.*.labels".split()
)
"""Lists that may not hold a thing twice."""

NAME = "^[a-zA-Z0-9._-]+$"
NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
"""What services, networks, volumes, configs, secrets and models may be called."""


class Node:
    """One step of the tree of keys: what a value here may be, and what lies below it."""

    __slots__ = ("children", "item", "key", "name")

    def __init__(self) -> None:
        self.key: Key | None = None
        self.children: dict[str, Node] = {}  # fixed names
        self.name: Node | None = None  # any name (`*`)
        self.item: Node | None = None  # list items (`[]`)

    def child(self, name: str) -> Node | None:
        return self.children.get(name) or self.name


def rows() -> list[Key]:
    """Every key, in the order of the table."""
    found = []
    for line in _TABLE.split("\n"):
        words = line.split()
        if words:
            merge = words[2] if len(words) > 2 and words[2] != "-" else ""
            found.append(Key(words[0], words[1], merge, words[3] if len(words) > 3 else ""))
    return found


def _grow() -> Node:
    root = Node()
    for row in rows():
        node = root
        for part in row.path.replace("[]", ".[]").split("."):
            if part == "*":
                node.name = node.name or Node()
                node = node.name
            elif part == "[]":
                node.item = node.item or Node()
                node = node.item
            else:
                node = node.children.setdefault(part, Node())
        node.key = row
    return root


ROOT = _grow()
SERVICE = ROOT.children["services"].name or Node()
TOP_LEVEL = frozenset(ROOT.children)
RESOURCES = ("networks", "volumes", "configs", "secrets", "models")
