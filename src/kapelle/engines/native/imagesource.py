"""Where a project's images come from: the store, a registry, a build, or a stand-in."""

from __future__ import annotations

import os
from _thread import LockType, allocate_lock  # threading itself is not needed here
from collections.abc import Iterable, Mapping

from kapelle.errors import ImageError
from kapelle.events import Emit, Event, Notice, Progress
from kapelle.images import offline
from kapelle.images.store import Store
from kapelle.images.types import Image
from kapelle.light import TYPE_CHECKING
from kapelle.model.project import Project
from kapelle.plan import steps
from kapelle.state.paths import Paths

if TYPE_CHECKING:
    from kapelle.images.build.context import BuildOptions

_TRUE = ("1", "true", "yes", "on")


class ImageSource:
    def __init__(self, paths: Paths, store: Store, environ: Mapping[str, str]) -> None:
        self.paths = paths
        self.store = store
        self.environ = environ
        self.offline = offline.is_on(environ)
        self._resolved: dict[str, Image] = {}
        self._locks: dict[str, LockType] = {}
        self._guard = allocate_lock()
        self._held: int | None = None  # the store, in use

    def here(self, reference: str) -> Image | None:
        """The image of a reference, looked up once: it stays for the rest of this command."""
        found = self._resolved.get(reference)
        if found is None:
            self._hold()
            found = self.store.find(reference)
            if found is not None:
                self._resolved[reference] = found
        return found

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
            lock = self._locks.setdefault(reference, allocate_lock())
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
        have = self.store.find(reference)
        if self.offline:
            return self._here(reference, have, emit, policy, project)
        if have is not None and (policy == "never" or (policy == "missing" and not have.standin)):
            return have
        from kapelle.images.mirrors import settings
        from kapelle.images.pull import Unreachable, pull  # the HTTP library takes 35 ms to load
        from kapelle.images.standins.provide import advice, available, is_outdated, provide

        allowed = self.stand_ins(project) and available(reference, self.environ)

        def tell(event: Event) -> None:
            if not (allowed and isinstance(event, Progress) and event.state == "error"):
                emit(event)  # what the stand-in makes good again is no error

        try:
            return pull(
                reference, self.store, settings(self.environ, self.paths), tell, policy=policy, platform=platform
            )
        except Unreachable as e:
            if not available(reference, self.environ):
                instead = advice(reference)
                e.hint = f"no stand-in can be built; {instead}" if instead else e.hint
                raise
            if not self.stand_ins(project):
                e.hint = (
                    "build a stand-in from Debian packages: kap up with KAP_STAND_INS=1 "
                    "(or x-kap-stand-ins: true in the file)"
                )
                raise
            if have is not None and have.standin and not is_outdated(have, reference, self.environ):
                emit(Progress("image", reference, "Pulled", "done", details=have.standin))
                return have
            return provide(reference, self.store, None, emit, environ=self.environ)

    def _here(self, reference: str, have: Image | None, emit: Emit, policy: str, project: Project | None) -> Image:
        """An image without asking the network: the one that is here, or a stand-in that was made before."""
        from kapelle.images.standins.provide import available, provide

        if have is not None:
            if policy == "always":
                text = f"{reference}: its pull policy is always; the image that is here is used (--offline)"
                emit(Notice(text, level="info", once=f"offline-{reference}"))
            return have
        if policy != "never" and self.stand_ins(project) and available(reference, self.environ):
            return provide(reference, self.store, None, emit, environ=self.environ)
        raise offline.missing([reference])

    def tell_how_many(self, e: ImageError, reference: str, project: Project) -> None:
        """Complete a pull's error by what the project has and has not, where a registry failed us (E7)."""
        if e.code != "KAP501":
            return
        wanted = {s.image for s in project.services if s.image and s.build is None}
        gone = [name for name in wanted if self.store.find(name) is None]
        if reference in wanted and reference not in gone:
            e.hint = f"carry on with what is here: kap up --offline, or {e.hint}" if e.hint else "kap up --offline"
        elif len(wanted) > 1 and gone:
            e.what += f" ({len(gone)} of {len(wanted)} images {'is' if len(gone) == 1 else 'are'} missing)"

    def require_here(self, wanted: Iterable[steps.Step], project: Project) -> None:
        """While offline: all images that a plan would pull and that can't be had, told together."""
        from kapelle.images.standins.provide import available, is_made

        gone: dict[str, str] = {}
        for step in wanted:
            if not isinstance(step, steps.PullImage) or step.fallback_build or self.store.find(step.image) is not None:
                continue
            if not (
                self.stand_ins(project)
                and available(step.image, self.environ)
                and is_made(step.image, self.store, self.environ)
            ):
                gone.setdefault(step.image, step.service)
        if gone:
            service = project.service(next(iter(gone.values())))
            raise offline.missing([*gone], where=service.where.get("image") if service is not None else None)

    def build(self, step: steps.BuildImage, project: Project, emit: Emit) -> Image:
        """Build a service's image and name it."""
        from kapelle.engines.native import building

        image = building.perform(self, building.of_service(step, project, self.environ, emit), project, emit)
        self._resolved[step.image] = image
        return image

    def build_alone(self, options: BuildOptions, emit: Emit) -> Image:
        """Build without a compose file."""
        from kapelle.engines.native import building

        return building.perform(self, options, None, emit)
