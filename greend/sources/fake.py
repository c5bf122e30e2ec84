"""A CPU package that does not exist: for trying greend without hardware, for demonstrations and tests."""

from __future__ import annotations

from greend.clock import Clock
from greend.errors import SourceError
from greend.types import CounterKey, Reading

PACKAGE = CounterKey("fake", "package-0", "energy_uj")


class FakeSource:
    """A package counter in uJ that grows by `power_w`, like RAPL's; it starts at 0 when the source is made.

    `wraps_at` (uJ) makes it restart at 0 each time it gets there; None: it grows for ever.
    """

    def __init__(self, clock: Clock, power_w: float = 50.0, wraps_at: float | None = None) -> None:
        self.name = "fake"
        self.problems: dict[str, str] = {}
        self._clock = clock
        self._power_w = power_w
        self._highest_w = power_w
        self._wraps_at = wraps_at
        self._true_uj = 0.0
        self._since_uj = 0.0
        self._at = clock.now()
        self._failures = 0

    def probe(self) -> str | None:
        """Return None: a simulation is always there."""
        return None

    def read(self) -> list[Reading]:
        """Return the package's energy in uJ. Raises SourceError as often as `fail_next` asked for."""
        self._advance()
        if self._failures:
            self._failures -= 1
            raise SourceError("read fake package-0: told to fail")
        value = self._true_uj - self._since_uj
        if self._wraps_at is not None:
            value %= self._wraps_at
        # As RAPL: nothing plausible draws more than 2 kW, unless we were told to.
        max_rate = max(2000.0, 2 * self._highest_w) * 1e6
        return [Reading(PACKAGE, float(int(value)), "uJ", wraps_at=self._wraps_at, max_rate=max_rate)]

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""

    @property
    def energy_j(self) -> float:
        """The true energy in joules since the source was made, whatever the counter shows."""
        self._advance()
        return self._true_uj / 1e6

    def set_power(self, power_w: float) -> None:
        """Draw `power_w` watts from now on."""
        self._advance()
        self._power_w = power_w
        self._highest_w = max(self._highest_w, power_w)

    def fail_next(self, times: int = 1) -> None:
        """Make the next reads raise SourceError; the package goes on drawing power."""
        self._failures = times

    def restart_counter(self) -> None:
        """Set the counter to 0, as reloading a kernel module does."""
        self._advance()
        self._since_uj = self._true_uj

    def _advance(self) -> None:
        now = self._clock.now()
        self._true_uj += self._power_w * 1e6 * now.seconds_since(self._at)
        self._at = now
