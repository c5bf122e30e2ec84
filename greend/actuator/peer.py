"""Who is at the other end of a Unix socket, as the kernel tells it."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

from greend.sources.processes import stat

SO_PEERPIDFD = 77
"""From Linux 6.5; Python has no name for it."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected."""

    pid: int
    uid: int
    started: int
    """Start in clock ticks since boot; 0 when the process has gone already."""
    pidfd: int | None
    """Becomes readable when the process ends, also when a child of its keeps the connection open."""


def peer_of(connection: socket.socket) -> Peer:
    """Return who connected; the caller closes `pidfd`."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _gid = struct.unpack("3i", raw)
    found = stat(pid)
    return Peer(pid, uid, found.start if found is not None else 0, _pidfd(connection, pid))


def _pidfd(connection: socket.socket, pid: int) -> int | None:
    try:
        return connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError:
        pass
    try:
        # An older kernel: between connecting and this the pid may have become somebody else's, whose end
        # would then end the leases early. That is the safe side.
        return os.pidfd_open(pid)
    except OSError:
        return None
