"""Telling systemd how we are (sd_notify), with a socket and nothing else."""

from __future__ import annotations

import os
import socket


class Notifier:
    """Sends READY, STATUS, WATCHDOG and STOPPING; silent where nobody asked (no $NOTIFY_SOCKET)."""

    def __init__(self, address: str | None = None) -> None:
        self._address = address if address is not None else os.environ.get("NOTIFY_SOCKET", "")

    def send(self, *lines: str) -> None:
        """Send state lines such as `READY=1`; never raises, since a deaf manager must not stop us."""
        if not self._address:
            return
        path = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.connect(path)
                sock.sendall("\n".join(lines).encode())
        except OSError:
            pass
