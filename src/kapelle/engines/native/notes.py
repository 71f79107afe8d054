"""What of a service could not be honoured at its start, as notices with their place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kapelle.engines.native import limits, security
from kapelle.events import Notice
from kapelle.model.service import Service


def of(service: Service, told: Iterable[Sequence[str]]) -> Iterator[Notice]:
    """A notice for each (compose key, why) that the start told, and for what this kernel has nothing for.

    An empty key speaks of the service as a whole.
    """
    for key, why in (*told, *security.notes(service)):
        yield Notice(
            f'service "{service.name}": {key} is not honoured: {why}' if key else f'service "{service.name}": {why}',
            where=limits.place(service, key),
            once=f"note:{service.name}:{key}",
        )
