"""The signal module without its enumerations, which take 2 ms to make in every command and helper process."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from signal import *  # noqa: F403
else:
    from _signal import *  # noqa: F403
