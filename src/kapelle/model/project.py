"""The project: all that one set of compose files describes."""

from __future__ import annotations

from collections.abc import Mapping

from kapelle.errors import Position
from kapelle.light import Any, NamedTuple
from kapelle.model.service import Service


class Network(NamedTuple):
    key: str
    name: str  # PROJECT_key, or name:
    driver: str = ""  # "" = bridge
    driver_opts: tuple[tuple[str, str], ...] = ()
    external: bool = False
    internal: bool = False
    attachable: bool = False
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    ipam: tuple[Mapping[str, Any], ...] = ()  # subnet, gateway, ip_range, aux_addresses
    labels: tuple[tuple[str, str], ...] = ()
    config_hash: str = ""
    where: Position | None = None


class Volume(NamedTuple):
    key: str
    name: str
    driver: str = ""  # "" = local
    driver_opts: tuple[tuple[str, str], ...] = ()
    external: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    config_hash: str = ""
    where: Position | None = None


class FileSource(NamedTuple):
    """A top-level config or secret: exactly one of file, environment, content, external."""

    key: str
    name: str = ""
    file: str = ""  # absolute path
    environment: str = ""  # name of the variable
    content: str | None = None  # its value, or a config's inline content
    external: bool = False
    where: Position | None = None


class Project(NamedTuple):
    name: str
    working_dir: str
    files: tuple[str, ...]  # absolute paths, as merged ("-" for stdin)
    services: tuple[Service, ...]  # enabled ones, sorted by name
    networks: tuple[Network, ...] = ()
    volumes: tuple[Volume, ...] = ()
    configs: tuple[FileSource, ...] = ()
    secrets: tuple[FileSource, ...] = ()
    disabled: tuple[Service, ...] = ()  # switched off by profiles
    profiles: tuple[str, ...] = ()  # active ones
    env_files: tuple[str, ...] = ()  # given by --env-file
    extensions: tuple[tuple[str, Any], ...] = ()
    raw: Mapping[str, Any] = {}  # canonical tree of all

    def service(self, name: str) -> Service | None:
        return next((s for s in self.services if s.name == name), None)

    def image_of(self, service: Service) -> str:
        """The image a service runs: its own name, or the one its build gets."""
        return service.image or f"{self.name}-{service.name}"
