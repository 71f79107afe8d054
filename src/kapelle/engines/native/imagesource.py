"""Where a project's images come from: the store, a registry, a build, or a stand-in."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock

from kapelle.errors import ImageError
from kapelle.events import Emit, Progress
from kapelle.images.store import Store
from kapelle.images.types import Image
from kapelle.model.project import Project
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
                found = self._resolved[reference] = self._fetch(reference, emit, policy, platform, project)
            return found

    def _fetch(self, reference: str, emit: Emit, policy: str, platform: str, project: Project | None) -> Image:
        from kapelle.images import pull
        from kapelle.images.standins import provide

        have = self.store.find(reference)
        if have is not None and (policy in ("missing", "never") or (policy == "missing" and not have.standin)):
            return have
        try:
            return pull.pull(
                reference, self.store, pull.settings(self.environ, self.paths), emit, policy=policy, platform=platform
            )
        except pull.Unreachable as e:
            if not provide.available(reference):
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
            return provide.provide(reference, self.store, None, emit, environ=self.environ)

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
        )
        options = builder.BuildOptions(
            name=step.image,
            service=service.name,
            build=service.build._replace(labels=labels),
            no_cache=step.no_cache or service.build.no_cache,
            pull=step.pull or service.build.pull,
            host_settings=self.environ.get("KAP_HOST_SETTINGS", "").lower() in _TRUE,
        )
        policy = "always" if options.pull else "missing"
        with BuildRunner(self.paths) as run:
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
