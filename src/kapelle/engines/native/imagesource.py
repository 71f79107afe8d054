"""Where a project's images come from: the store, a registry, a build, or a stand-in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from threading import Lock

from kapelle import COMPOSE_VERSION
from kapelle.errors import ImageError
from kapelle.events import Emit, Event, Progress
from kapelle.images.store import Store
from kapelle.images.types import Image
from kapelle.model.project import Project
from kapelle.model.service import Service
from kapelle.plan import steps
from kapelle.state.paths import Paths

_TRUE = ("1", "true", "yes", "on")


class ImageSource:
    def __init__(self, paths: Paths, store: Store, environ: Mapping[str, str]) -> None:
        self.paths = paths
        self.store = store
        self.environ = environ
        self._resolved: dict[str, Image] = {}
        self._locks: dict[str, Lock] = {}
        self._guard = Lock()
        self._held: int | None = None  # the store, in use

    def resolved(self, reference: str) -> Image | None:
        """The image this command has already found or made for a reference."""
        return self._resolved.get(reference)

    def stand_ins(self, project: Project | None) -> bool:
        """May a stand-in be built when no registry answers? Only when somebody asked for it."""
        if self.environ.get("KAP_STAND_INS", "").lower() in _TRUE:
            return True
        extensions = dict(project.extensions) if project is not None else {}
        return extensions.get("x-kap-stand-ins") is True

    def get(
        self, reference: str, emit: Emit, *, policy: str = "missing", platform: str = "", project: Project | None = None
    ) -> Image:
        """The image, pulled if need be. Raises ImageError; two askers of one name share one pull."""
        with self._guard:
            lock = self._locks.setdefault(reference, Lock())
        with lock:
            found = self._resolved.get(reference)
            if found is None:
                self._hold()
                found = self._resolved[reference] = self._fetch(reference, emit, policy, platform, project)
            return found

    def _hold(self) -> None:
        """Keep collectors away until a container has been made of what was fetched."""
        with self._guard:
            if self._held is None:
                self._held = self.store.hold()

    def release(self) -> None:
        """What was fetched has its container by now, or is not wanted any more."""
        with self._guard:
            if self._held is not None:
                os.close(self._held)
                self._held = None

    def _fetch(self, reference: str, emit: Emit, policy: str, platform: str, project: Project | None) -> Image:
        from kapelle.images.mirrors import settings
        from kapelle.images.pull import Unreachable, pull
        from kapelle.images.standins.provide import available, provide

        have = self.store.find(reference)
        if have is not None and (policy == "never" or (policy == "missing" and not have.standin)):
            return have
        allowed = self.stand_ins(project) and available(reference)

        def tell(event: Event) -> None:
            if not (allowed and isinstance(event, Progress) and event.state == "error"):
                emit(event)  # what the stand-in makes good again is no error

        try:
            return pull(
                reference, self.store, settings(self.environ, self.paths), tell, policy=policy, platform=platform
            )
        except Unreachable as e:
            if not available(reference):
                raise
            if not self.stand_ins(project):
                e.hint = (
                    "build a stand-in from Debian packages: kap up with KAP_STAND_INS=1 "
                    "(or x-kap-stand-ins: true in the file)"
                )
                raise
            if have is not None and have.standin:
                emit(Progress("image", reference, "Pulled", "done", details=have.standin))
                return have
            return provide(reference, self.store, None, emit, environ=self.environ)

    def build(self, step: steps.BuildImage, project: Project, emit: Emit) -> Image:
        """Build a service's image and name it."""
        from kapelle.engines.native.buildrun import BuildRunner
        from kapelle.images.build import builder

        service = project.service(step.service)
        if service is None:
            service = next((s for s in project.disabled if s.name == step.service), None)
        if service is None or service.build is None:
            raise ImageError(f'service "{step.service}" has no build section')
        labels = (
            *service.build.labels,
            ("com.docker.compose.project", project.name),
            ("com.docker.compose.service", service.name),
            ("com.docker.compose.version", COMPOSE_VERSION),
        )
        options = builder.BuildOptions(
            name=step.image,
            service=service.name,
            build=service.build._replace(labels=labels),
            no_cache=step.no_cache or service.build.no_cache,
            pull=step.pull or service.build.pull,
            host_settings=self.environ.get("KAP_HOST_SETTINGS", "").lower() in _TRUE,
            secrets=self._secrets(service, project),
        )
        policy = "always" if options.pull else "missing"
        with self.store.using(), BuildRunner(self.paths) as run:  # layers of steps have no image yet
            image = builder.build(
                options,
                self.store,
                run,
                lambda reference: self.get(reference, emit, policy=policy, project=project),
                emit,
                self.environ,
            )
        self._resolved[step.image] = image
        return image

    def _secrets(self, service: Service, project: Project) -> tuple[tuple[str, str], ...]:
        """build.secrets: name → content, from files and variables."""
        sources = {s.key: s for s in project.secrets}
        found = []
        for grant in service.build.secrets if service.build is not None else ():
            source = sources.get(grant.source)
            if source is None:
                continue
            content = source.content
            if source.file:
                try:
                    with open(source.file, encoding="utf-8") as f:
                        content = f.read()
                except (OSError, UnicodeDecodeError) as e:
                    raise ImageError(f"build secret {source.key}: {source.file}: {e}", where=source.where) from None
            if content is not None:
                found.append((grant.target.rpartition("/")[2] or grant.source, content))
        return tuple(found)
