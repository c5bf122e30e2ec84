"""A Unix socket to listen on: closed to strangers from the start, and never in place of another's."""

from __future__ import annotations

import os
import socket
import stat
import struct
from pathlib import Path

from greend.errors import GreendError, PermissionDenied, SocketInUse


def bind(path: Path, mode: int, who: str = "daemon") -> socket.socket:
    """Return a listening socket at `path`, with its mode set before anybody can connect.

    A socket that nobody answers on is left over from a killed daemon and is replaced; one that is
    answered, or anything that is not a socket, raises SocketInUse. Raises PermissionDenied.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _clear(path, who)
        # Closed to others before it exists: uvicorn would open a socket of its own to everybody (0666).
        before = os.umask(0o777 & ~mode)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        sock.listen(128)
    except PermissionError as error:
        sock.close()
        raise PermissionDenied(
            f"listen on {path}: permission denied; choose another with --socket"
        ) from error
    except OSError as error:
        sock.close()
        raise SocketInUse(f"listen on {path}: {error.strerror or error}") from error
    except GreendError:
        sock.close()
        raise
    return sock


def _clear(path: Path, who: str) -> None:
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise SocketInUse(f"listen on {path}: something that is not a socket lies there; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid = struct.unpack("3i", raw)[0]
    raise SocketInUse(
        f"listen on {path}: another greend {who} (pid {pid}) listens there; "
        "stop it, or choose another socket with --socket"
    )
