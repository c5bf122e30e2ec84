"""E = Σ C·P: intervals of counters become joules per component (pure).

Each component is priced by one meter, the best of the table whose counters live: a package's RAPL counter
before CPU time, an energy counter before integrated power. A component that no meter can price is absent:
missing is not 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from greend.energy.coefficients import ELAPSED, CoefficientTable, CpuRow, Figure, MeterSpec, Term
from greend.types import (
    Component,
    ComponentEnergy,
    CounterKey,
    Hardware,
    Interval,
    IntervalFlag,
    Meter,
)

NO_ROW = CpuRow("no row", 0.0, 0.0, 1.0, "")


def price(
    intervals: Sequence[Interval],
    dt_s: float,
    hardware: Hardware,
    table: CoefficientTable,
    awaited: Iterable[CounterKey] = (),
) -> list[ComponentEnergy]:
    """Return the joules of each component over one tick of `dt_s` seconds, idle and dynamic apart.

    A meter that reads a counter is priced over that counter's own interval, so one that covers a gap brings
    the gap's idle energy along; `dt_s` prices what reads no counter. `awaited` are counters that could not
    be read this time and whose next interval covers this one too (CounterBook.awaited): their component is
    absent now instead of being priced twice. Raises nothing.
    """
    counters = _Counters(intervals, awaited)
    claimed: dict[str, set[str]] = {}
    energies: list[ComponentEnergy] = []
    for spec, meter, row in _meters(table, hardware.cpu_model):
        taken = claimed.setdefault(spec.component, set())
        if spec.device:
            # This meter stands for all devices of its kind: none may have been priced by a better one.
            if taken or not counters.any_for(spec):
                continue
            taken.add(spec.device)
            found = {spec.device: counters.joined(spec)}
        else:
            found = counters.by_device(spec, taken)
            taken.update(found)
        for device, amounts in found.items():
            if amounts is None:
                continue
            pricing = _Pricing(spec, meter, row, hardware, dt_s, len(found))
            energies.append(pricing.energy(device, amounts, counters))
    return energies


Amounts = list[tuple[Term, list[Interval]]]
"""What each term of a meter has to multiply; an `elapsed` term has no intervals."""


class _Counters:
    """The intervals of one tick by source and counter, and the devices that are awaited."""

    def __init__(self, intervals: Sequence[Interval], awaited: Iterable[CounterKey]) -> None:
        self._live: dict[tuple[str, str], dict[str, Interval]] = {}
        self._awaited: dict[tuple[str, str], set[str]] = {}
        for interval in intervals:
            key = interval.key
            self._live.setdefault((key.source, key.counter), {})[key.device] = interval
        for key in awaited:
            self._awaited.setdefault((key.source, key.counter), set()).add(key.device)

    def matching(self, term: Term) -> list[Interval]:
        live = self._live.get((term.source, term.counter), {})
        return [interval for device, interval in live.items() if fnmatchcase(device, term.device)]

    def awaits(self, term: Term) -> set[str]:
        waiting = self._awaited.get((term.source, term.counter), ())
        return {device for device in waiting if fnmatchcase(device, term.device)}

    def any_for(self, spec: MeterSpec) -> bool:
        """Whether every term that reads a counter has one that lives or is awaited."""
        return all(t.counter == ELAPSED or self.matching(t) or self.awaits(t) for t in spec.term)

    def joined(self, spec: MeterSpec) -> Amounts | None:
        """All devices together; None while a term has nothing but awaited counters."""
        amounts: Amounts = [(t, [] if t.counter == ELAPSED else self.matching(t)) for t in spec.term]
        return amounts if all(t.counter == ELAPSED or found for t, found in amounts) else None

    def by_device(self, spec: MeterSpec, taken: set[str]) -> dict[str, Amounts | None]:
        """Each device that has all counters of the meter, or None for one that is awaited."""
        metered = [term for term in spec.term if term.counter != ELAPSED]
        live = [{i.key.device: i for i in self.matching(term)} for term in metered]
        waiting = [self.awaits(term) for term in metered]
        found: dict[str, Amounts | None] = {}
        for device in dict.fromkeys([*live[0], *sorted(waiting[0])]):
            if device in taken:
                continue
            if all(device in intervals for intervals in live):
                by_term = iter(live)
                found[device] = [
                    (term, [] if term.counter == ELAPSED else [next(by_term)[device]]) for term in spec.term
                ]
            elif all(device in i or device in w for i, w in zip(live, waiting, strict=True)):
                found[device] = None
        return found

    def stands_still(self, source: str, device: str, counter: str) -> bool:
        interval = self._live.get((source, counter), {}).get(device)
        return interval is not None and interval.amount == 0


@dataclass(frozen=True, slots=True)
class _Pricing:
    """One meter on one machine: how its terms become joules. `devices` share the floor of the component."""

    spec: MeterSpec
    meter: Meter
    row: CpuRow
    hardware: Hardware
    dt_s: float
    devices: int

    def energy(self, device: str, amounts: Amounts, counters: _Counters) -> ComponentEnergy:
        seconds = max((i.seconds for _, found in amounts for i in found), default=self.dt_s)
        joules = {"idle": 0.0, "dynamic": 0.0}
        flags = IntervalFlag.NONE
        for term, found in amounts:
            units = seconds if term.counter == ELAPSED else sum(i.amount for i in found)
            joules[term.role] += self._figure(term.joules_per_unit) * self._scale(term) * units
            for interval in found:
                flags |= interval.flags
        moved = min(joules["dynamic"], self._floor_w() * seconds)
        still = self.spec.idle_if_zero
        if still and counters.stands_still(self.spec.term[0].source, device, still):
            moved = joules["dynamic"]
        return ComponentEnergy(
            component=Component(self.spec.component, device),
            idle_j=joules["idle"] + moved,
            dynamic_j=joules["dynamic"] - moved,
            meter=self.meter,
            flags=flags,
        )

    def _figure(self, figure: float | Figure) -> float:
        return getattr(self.row, figure) if isinstance(figure, str) else figure

    def _scale(self, term: Term) -> float:
        if term.per == "thread":
            return self.hardware.threads
        return self.hardware.dram_gb if term.per == "gb" else 1.0

    def _floor_w(self) -> float:
        """Watts that one device of the component draws idle, by the table."""
        floor = self.spec.floor_w
        whole_w = self._figure(floor) * self.hardware.threads if isinstance(floor, str) else floor
        return whole_w / self.devices if isinstance(floor, str) else whole_w


@lru_cache(maxsize=8)
def _meters(table: CoefficientTable, cpu_model: str) -> list[tuple[MeterSpec, Meter, CpuRow]]:
    """Each meter of the table as this machine uses it; those whose figures the table lacks are left out."""
    row = table.cpu_row(cpu_model)
    usable = []
    for spec in table.meters:
        modelled = any(isinstance(term.joules_per_unit, str) for term in spec.term)
        if modelled and row is None:
            continue
        words, factor = spec.source, spec.factor
        if modelled and row is not None:
            # The error of a product whose one factor is a looked-up figure is that figure's.
            words, factor = f"{spec.source} ({row.name})", max(spec.factor, row.factor)
        meter = Meter(spec.name, words, spec.quality, factor - 1, table.label)
        usable.append((spec, meter, row or NO_ROW))
    return usable
