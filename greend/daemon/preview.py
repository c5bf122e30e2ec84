"""What a daemon would see here: two looks at the counters, priced, without a database or a socket."""

from __future__ import annotations

import time

from greend.clock import Clock
from greend.counters import CounterBook
from greend.daemon.sources import SourceSet
from greend.energy.coefficients import load_table
from greend.energy.model import price
from greend.errors import SourceError
from greend.sources.hardware import hardware
from greend.types import ComponentEnergy

PAUSE_S = 0.2


def preview(sources: SourceSet, clock: Clock, pause_s: float = PAUSE_S) -> list[ComponentEnergy]:
    """Return one short interval's energy of each component, as this user can read it."""
    counters = CounterBook(period_s=pause_s)
    intervals = []
    start = clock.now()
    for turn in range(2):
        if turn:
            time.sleep(pause_s)
        readings = []
        for source in sources.working:
            try:
                readings += source.read()
            except SourceError:
                continue
        intervals = counters.update(readings, clock.now().mono_ns)
    return price(intervals, clock.now().seconds_since(start), hardware(), load_table())
