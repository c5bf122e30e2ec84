"""The actuator from start to end: what is left turned is put back first, then the daemon is answered."""

from __future__ import annotations

import logging
import os
import pwd
import signal
import socket
from collections.abc import Iterable
from pathlib import Path

from greend.actuator.cgroup import CGROUP
from greend.actuator.controls import Controls
from greend.actuator.leases import LeaseBook
from greend.actuator.ledger import Ledger
from greend.actuator.rapl import POWERCAP
from greend.actuator.server import Server
from greend.clock import Clock, SystemClock
from greend.errors import UsageError
from greend.listening import bind
from greend.sources.processes import boot_id

log = logging.getLogger("greend.actuator")

STATE = Path("/var/lib/greend-actuator")
FIRST_FD = 3
"""Where systemd puts the first socket that it hands over (sd_listen_fds(3))."""


def run(
    path: Path,
    state: Path = STATE,
    users: Iterable[str] = (),
    idle_s: float | None = None,
    powercap: Path = POWERCAP,
    cgroup: Path = CGROUP,
    clock: Clock | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, on the socket that systemd handed over or else on one at `path`.

    `users` may ask, beside root and whoever runs this. Raises UsageError for one that does not exist, and
    what Ledger and bind raise.
    """
    uids = frozenset({0, os.geteuid(), *(_uid(user) for user in users)})
    ledger = Ledger(state, boot_id())
    controls = Controls(powercap, cgroup)
    book = LeaseBook(controls, ledger)
    for said in book.recover():
        log.warning("left by an actuator that was killed: %s", said)
    sock = handed_over()
    own = sock is None
    if sock is None:
        sock = bind(path, 0o600 if uids == {os.geteuid()} else 0o666, "actuator")
    server = Server(sock, book, clock or SystemClock(), uids, None if own else idle_s)
    server.stop_on(signal.SIGTERM, signal.SIGINT)
    log.info("answers user %s on %s", ", ".join(str(uid) for uid in sorted(uids)), path)
    try:
        server.serve()
    finally:
        sock.close()
        if own:
            path.unlink(missing_ok=True)
        controls.close()
        ledger.close()


def handed_over() -> socket.socket | None:
    """Return the listening socket that systemd handed over (LISTEN_FDS), if it did."""
    pid, fds = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    if pid != str(os.getpid()) or fds != "1":
        return None
    os.set_inheritable(FIRST_FD, False)
    return socket.socket(fileno=FIRST_FD)


def _uid(user: str) -> int:
    try:
        return int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise UsageError(f"allow user {user!r}: this machine knows none of that name") from error
