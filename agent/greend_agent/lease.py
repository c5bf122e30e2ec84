"""How long a directive holds when the daemon falls silent (pure)."""

from __future__ import annotations

from greend.clock import NS
from greend.wire import Directive

LEAST_PACE = 0.01
"""A loop that should stand still is to be stopped by other means."""


class Lease:
    """The last directive, and when the daemon was last heard."""

    def __init__(self) -> None:
        self._directive: Directive | None = None
        self._heard_ns = 0

    @property
    def ttl_s(self) -> float | None:
        """How long the directive in force outlives the daemon's silence; None without one."""
        return self._directive.ttl_s if self._directive is not None else None

    def heard(self, now_ns: int, directive: Directive | None = None) -> None:
        """Note that the daemon spoke: a directive, or a ping that renews the one in force."""
        self._heard_ns = now_ns
        if directive is not None:
            self._directive = directive

    def level(self, now_ns: int, top: int) -> int | None:
        """Return the level that is wanted at an instant; None when nothing was ever asked."""
        if self._directive is None:
            return None
        return top if self._given_back(self._directive, now_ns) else self._directive.level

    def pace(self, now_ns: int) -> float:
        """Return the share of full speed that is wanted at an instant; 1 when nothing was ever asked."""
        if self._directive is None or self._given_back(self._directive, now_ns):
            return 1.0
        # What is no share, also what is no number, must not make a loop wait for ever.
        return self._directive.pace if LEAST_PACE <= self._directive.pace < 1.0 else 1.0

    def _given_back(self, directive: Directive, now_ns: int) -> bool:
        lost = now_ns - self._heard_ns > directive.ttl_s * NS
        return lost and directive.on_loss != "hold"
