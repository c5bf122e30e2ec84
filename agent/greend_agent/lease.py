"""How long a directive holds when the daemon falls silent (pure)."""

from __future__ import annotations

from greend.clock import NS
from greend.wire import Directive


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
        lost = now_ns - self._heard_ns > self._directive.ttl_s * NS
        return top if lost and self._directive.on_loss != "hold" else self._directive.level
