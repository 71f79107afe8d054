"""Which environment variables are read: the table behind docs/reference/environment.md (tools/reference_docs.py)."""

from __future__ import annotations

from kapelle.light import NamedTuple


class Variable(NamedTuple):
    name: str
    flag: str  # what says the same on the command line and goes first
    meaning: str


COMPOSE = (
    Variable("COMPOSE_FILE", "-f", "the compose files, with `:` between them"),
    Variable("COMPOSE_PATH_SEPARATOR", "", "what stands between the files of `COMPOSE_FILE`"),
    Variable("COMPOSE_PROJECT_NAME", "-p", "the project's name; values may use it as `${COMPOSE_PROJECT_NAME}`"),
    Variable("COMPOSE_PROFILES", "--profile", "profiles to enable, with `,` between them"),
    Variable("COMPOSE_ENV_FILES", "--env-file", "files of variables in place of `.env`, with `,` between them"),
    Variable("COMPOSE_DISABLE_ENV_FILE", "", "`1`: no `.env` is read"),
    Variable("COMPOSE_PARALLEL_LIMIT", "--parallel", "upper bound of steps at a time"),
    Variable("COMPOSE_ANSI", "--ansi", "`never`, `always` or `auto`: terminal control sequences"),
    Variable("COMPOSE_PROGRESS", "--progress", "`auto`, `tty`, `plain`, `json` or `quiet`"),
    Variable("COMPOSE_STATUS_STDOUT", "", "`1`: progress goes to stdout instead of stderr"),
    Variable("COMPOSE_REMOVE_ORPHANS", "--remove-orphans", "`1`: `up`, `create`, `run` and `down` remove orphans"),
    Variable("COMPOSE_IGNORE_ORPHANS", "", "`1`: nothing is said of orphans"),
    Variable("COMPOSE_COMPATIBILITY", "--compatibility", "`1`: names with `_` in place of `-`"),
)
OWN = (
    Variable("KAP_HOME", "", "a folder for all that is kept; installations with different ones do not see each other"),
    Variable("KAP_STAND_INS", "--stand-ins", "`1`: build stand-ins for official images that can't be pulled"),
    Variable("KAP_OFFLINE", "--offline", "`1`: nothing of Kapelle's own asks the network"),
    Variable("KAP_PORTS", "--ports", "`auto`: free ports in place of published ones that are taken"),
    Variable("KAP_HOST_SETTINGS", "--host-settings", "`1`: builds see the host's proxies, CA bundle and indexes"),
    Variable("KAP_MIRRORS", "", "`REGISTRY=URL,…`: mirrors, asked before the registry itself"),
    Variable("KAP_DEBIAN_MIRROR", "", "where stand-ins get Debian's packages; else the host's apt settings say it"),
    Variable("KAP_DEBIAN_SECURITY_MIRROR", "", "the same for Debian's security updates"),
    Variable("KAP_DEBIAN_KEYRING", "", "a file of further keys that may sign such a mirror"),
    Variable("KAP_COMPAT", "", "`strict`: timing as docker's, where Kapelle would be sooner (stop, `up --wait`)"),
    Variable("KAP_RUNG", "", "`R2` or `R3`: run with less than this machine gives"),
    Variable("KAP_USERNS", "", "`private`: as root, each container gets a user namespace of its own"),
    Variable("KAP_OVERLAY", "", "`kernel`, `fuse` or `copy`: how layers are stacked; else the best that works here"),
    Variable("KAP_KEEP_LAYER_ARCHIVES", "", "`false`: layers are not kept as they came, beside their unpacked form"),
    Variable("KAP_CDI_DIRS", "", "folders of CDI specifications, with `:` between them; else /etc/cdi:/var/run/cdi"),
    Variable("KAP_ENGINE", "--engine", "which engine runs the containers; there is one, `native`"),
    Variable("KAP_DEBUG", "", "`1`: a defect of Kapelle is shown as a traceback"),
)
# Set by Kapelle for its own processes, not for people.
INTERNAL = ("KAP_INTERPRETER_PROTECTED",)
SHARED = (
    Variable("DOCKER_CONFIG", "", "folder of docker's own `config.json`, with logins; else `~/.docker`"),
    Variable("CONTAINERS_REGISTRIES_CONF", "", "podman's `registries.conf` in another place"),
    Variable("HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY", "", "proxies, in capitals or not; builds get them, too"),
    Variable("SSL_CERT_FILE, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE", "", "certificates that registries are checked with"),
    Variable("SOURCE_DATE_EPOCH", "", "the time that a build gives its image and files"),
    Variable("SSH_AUTH_SOCK", "", "the agent behind `build.ssh: default`"),
    Variable("XDG_DATA_HOME, XDG_STATE_HOME, XDG_CONFIG_HOME, XDG_RUNTIME_DIR", "", "an ordinary user's places"),
    Variable("NO_COLOR, TERM", "", "no colours; what the terminal can"),
)
