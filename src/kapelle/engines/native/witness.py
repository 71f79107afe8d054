"""A child that stays outside of the command's user namespace and looks at what can't be seen from inside.

From a user namespace the descriptors of the user's other processes are out of sight (ptrace(2), access mode checks), so
nobody could say who holds a port. It ends with the command: its end of the socket closes.
"""

from __future__ import annotations

import os

from kapelle.light import jsontext, signal, socket
from kapelle.linux import process, sockets

_asking: list[socket.socket] = []


def leave() -> None:
    """Fork the child. Called by a process with one thread, before it goes to another namespace."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        try:
            ours.close()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            process.close_range(0, theirs.fileno() - 1)
            process.close_range(theirs.fileno() + 1)
            _serve(theirs)
        finally:
            os._exit(0)
    theirs.close()
    _asking.append(ours)


def _serve(sock: socket.socket) -> None:
    while True:
        asked = sock.recv(65536)
        if not asked:
            return
        sock.send(jsontext.dumps(list(sockets.holders(set(jsontext.loads(asked))).items())).encode())


def holders(inodes: set[int]) -> dict[int, int]:
    """`sockets.holders`, seen from outside where there is a witness."""
    if not _asking:
        return sockets.holders(inodes)
    try:
        _asking[0].send(jsontext.dumps(sorted(inodes)).encode())
        return dict(jsontext.loads(_asking[0].recv(65536)))
    except (OSError, ValueError):
        return {}
