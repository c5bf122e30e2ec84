"""Holds of jobs' levels: each belongs to a connection and a process, or has an end; then it is gone."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from greend.clock import NS, Instant
from greend.errors import GreendError, NotFound, PermissionDenied
from greend.sources.processes import stat
from greend.types import Lease


@dataclass
class Leases:
    """All holds in force. Those with an end are on the disk before they count, and outlive the daemon."""

    save: Callable[[Lease], None]
    """Keeps a lease that has an end; raises StoreError, and then it is not granted."""
    forget: Callable[[list[str]], None]
    _held: dict[str, Lease] = field(default_factory=dict)
    _processes: dict[str, int | None] = field(default_factory=dict)
    """Start time of the process behind each connection: its pid is used again."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def restore(self, kept: Sequence[Lease]) -> None:
        """Go on with what an earlier daemon has granted; what hung on a connection of its was never kept."""
        with self._lock:
            self._held.update((lease.id, lease) for lease in kept)

    def grant(
        self,
        job_id: str,
        level: int,
        reason: str,
        name: str,
        uid: int,
        pid: int,
        now: Instant,
        for_s: float | None = None,
    ) -> Lease:
        """Hold a job at a level or below: for so many seconds, else until `release` (as its connection ends).

        Raises StoreError when one with an end cannot be kept.
        """
        until = now.after(for_s).mono_ns if for_s is not None else None
        lease = Lease(f"h-{secrets.token_hex(3)}", job_id, level, reason, name, uid, pid, now.wall_ns, until)
        if until is not None:
            self.save(lease)
        started = stat(pid)
        with self._lock:
            self._held[lease.id] = lease
            self._processes[lease.id] = started.start if started is not None else None
        return lease

    def release(
        self, lease_id: str, uid: int | None = None, owner: Callable[[str], int] | None = None
    ) -> Lease:
        """End a hold and return it.

        `uid` is who asks (None: the daemon itself); `owner` says whose a job is. Raises NotFound, and
        PermissionDenied unless the one who asks holds it, owns the job or is root.
        """
        with self._lock:
            lease = self._held.get(lease_id)
            if lease is None:
                raise NotFound(
                    f"release hold {lease_id!r}: there is none; `greend hold` lists those in force"
                )
            if uid not in (None, 0, lease.uid) and (owner is None or uid != owner(lease.job_id)):
                raise PermissionDenied(
                    f"release hold {lease_id}: it belongs to user {lease.uid}, not to {uid}"
                )
        self._drop([lease])
        return lease

    def abandoned(self, lease_id: str) -> bool:
        """Whether the process that a hold belongs to has ended, though a child keeps its connection open."""
        with self._lock:
            lease, started = self._held.get(lease_id), self._processes.get(lease_id)
        if lease is None:
            return True
        found = stat(lease.pid)
        return found is None or found.start != started or found.state in "ZX"

    def held(self, lease_id: str) -> bool:
        """Whether a hold is in force."""
        with self._lock:
            return lease_id in self._held

    def of(self, job_id: str, now: Instant) -> tuple[Lease, ...]:
        """Return the holds of one job that have not ended, oldest first."""
        return tuple(lease for lease in self.all(now) if lease.job_id == job_id)

    def all(self, now: Instant) -> list[Lease]:
        """Return all holds that have not ended, oldest first; those that have are dropped."""
        with self._lock:
            over = [lease for lease in self._held.values() if _is_over(lease, now)]
        # One that cannot be forgotten now is over all the same, also after a restart.
        with contextlib.suppress(GreendError):
            self._drop(over)
        with self._lock:
            return list(self._held.values())

    def end_of_job(self, job_id: str) -> list[Lease]:
        """Drop the holds of a job that has ended, and return them."""
        with self._lock:
            gone = [lease for lease in self._held.values() if lease.job_id == job_id]
        with contextlib.suppress(GreendError):
            self._drop(gone)
        return gone

    def _drop(self, gone: Sequence[Lease]) -> None:
        with self._lock:
            for lease in gone:
                self._held.pop(lease.id, None)
                self._processes.pop(lease.id, None)
        kept = [lease.id for lease in gone if lease.until_mono_ns is not None]
        if kept:
            self.forget(kept)


def _is_over(lease: Lease, now: Instant) -> bool:
    return lease.until_mono_ns is not None and now.mono_ns >= lease.until_mono_ns


def until_wall_ns(lease: Lease, now: Instant) -> int | None:
    """Return when a hold ends by the wall clock of now; None: with its connection."""
    if lease.until_mono_ns is None:
        return None
    return now.after((lease.until_mono_ns - now.mono_ns) / NS).wall_ns


def topic(lease_id: str) -> str:
    """Return under which name the end of a hold is published."""
    return f"hold {lease_id}"
