"""What of a service could not be honoured at its start, as notices with their place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kapelle.engines.native import limits
from kapelle.events import Notice
from kapelle.model.service import Service


def of(notes: Iterable[Sequence[str]], service: Service | None) -> Iterator[Notice]:
    """A notice for each (compose key, why); an empty key speaks of the service as a whole."""
    if service is None:
        return
    for key, why in notes:
        yield Notice(
            f'service "{service.name}": {key} is not honoured: {why}' if key else f'service "{service.name}": {why}',
            where=limits.place(service, key),
            once=f"note:{service.name}:{key}",
        )
