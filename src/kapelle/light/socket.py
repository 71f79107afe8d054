"""The socket module without its enumerations, which take 4 ms to load in every command and helper process.

The class is the one that `socket.socket` extends; only what a with statement and accept(2) need is added.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import *  # noqa: F403
else:
    import _socket
    from _socket import *  # noqa: F403

    class socket(_socket.socket):
        __slots__ = ("__weakref__",)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.close()

        def accept(self):
            """(the connection, its address): blocking, closed on exec(2)."""
            fd, address = self._accept()
            return socket(fileno=fd), address

    def socketpair(family=_socket.AF_UNIX, kind=_socket.SOCK_STREAM, protocol=0):
        one, other = _socket.socketpair(family, kind, protocol)
        return socket(fileno=one.detach()), socket(fileno=other.detach())
