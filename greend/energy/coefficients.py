"""The coefficient table: joules per unit of each counter, with its 95 % factor and where it is from."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from greend.errors import ConfigError, PermissionDenied
from greend.types import Quality
from greend.units import nearest

ELAPSED = "elapsed"
"""The synthetic counter that grows by one second per second; idle power is its coefficient."""

Figure = Literal["idle_w_per_thread", "busy_w_per_thread"]
"""A figure that is looked up in the row of the machine's CPU instead of being written in the term."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename=None):
    """A table of the file; a key that is not a field of it is an error."""


class Term(_Part, frozen=True):
    """One addend C·P: so many joules for each unit of a counter, scaled by what the machine is made of."""

    counter: str
    """Name of the counter, or `elapsed` for seconds."""
    joules_per_unit: float | Figure
    role: Literal["idle", "dynamic"] = "dynamic"
    source: str = ""
    device: str = "*"
    """Which devices of the source, as a shell pattern."""
    per: Literal["", "thread", "gb"] = ""
    """Multiply by the machine's hardware threads, or its GB of memory."""


class MeterSpec(_Part, frozen=True):
    """One way to know what a component used: a set of terms."""

    name: str
    component: str
    """Kind of component: cpu, dram, gpu, disk, net. Meters of one kind are listed best first."""
    source: str
    """Words for people."""
    quality: Quality
    factor: float
    """x/÷ factor at 95 %; the relative error is factor - 1."""
    basis: str
    """Where the figures are from and how they were derived."""
    term: tuple[Term, ...]
    references: tuple[str, ...] = ()
    """Ids of `[[reference]]`."""
    device: str = ""
    """Join all matching devices into one component of this name; empty: one component per device."""
    floor_w: float | Figure = 0.0
    """Watts that the component draws when nothing runs: so much of the metered energy is idle."""
    idle_if_zero: str = ""
    """A counter of the same device; where it stood still, all of the energy is idle."""


class CpuRow(_Part, frozen=True):
    """Watts per hardware thread of a family of CPUs."""

    name: str
    idle_w_per_thread: float
    max_w_per_thread: float
    factor: float
    basis: str
    references: tuple[str, ...] = ()
    match: tuple[str, ...] = ()
    """Regular expressions on the CPU's name; the first row that matches is taken. Empty: any CPU."""

    @property
    def busy_w_per_thread(self) -> float:
        """Watts that one busy thread adds to what it draws idle."""
        return self.max_w_per_thread - self.idle_w_per_thread


class Reference(_Part, frozen=True):
    """Where figures are from, and under which licence they are carried."""

    id: str
    title: str
    where: str
    licence: str


class _File(_Part, frozen=True):
    name: str
    version: int
    basis: str = ""
    reference: tuple[Reference, ...] = ()
    meter: tuple[MeterSpec, ...] = ()
    cpu: tuple[CpuRow, ...] = ()


@dataclass(frozen=True, eq=False)
class CoefficientTable:
    """A checked table. Compared by identity, so that lookups in it can be remembered."""

    name: str
    version: int
    basis: str
    meters: tuple[MeterSpec, ...]
    cpus: tuple[CpuRow, ...]
    references: tuple[Reference, ...]

    @cached_property
    def label(self) -> str:
        """Name and version as stored with every figure: `default@1`."""
        return f"{self.name}@{self.version}"

    @cached_property
    def _patterns(self) -> tuple[tuple[CpuRow, tuple[re.Pattern[str], ...]], ...]:
        return tuple((row, tuple(re.compile(p, re.IGNORECASE) for p in row.match)) for row in self.cpus)

    def cpu_row(self, cpu_model: str) -> CpuRow | None:
        """Return the row of a CPU by the name that the kernel gives it; None: the table has no row for it."""
        for row, patterns in self._patterns:
            if not patterns or any(pattern.search(cpu_model) for pattern in patterns):
                return row
        return None


def load_table(path: Path | None = None) -> CoefficientTable:
    """Read a table; without a path the one that greend ships.

    Raises ConfigError (with the key and the nearest known one) or PermissionDenied.
    """
    if path is None:
        shipped = resources.files("greend.energy") / "tables" / "default.toml"
        return parse(shipped.read_bytes(), "the shipped coefficient table")
    path = path.expanduser()
    try:
        raw = path.read_bytes()
    except PermissionError as error:
        raise PermissionDenied(f"read {path}: permission denied") from error
    except OSError as error:
        raise ConfigError(
            f"read {path}: {error.strerror}; name an existing coefficient table, or leave energy.table empty"
        ) from error
    return parse(raw, str(path))


def parse(raw: bytes | str, name: str) -> CoefficientTable:
    """Return the table in a TOML text; `name` is how errors call it. Raises ConfigError."""
    try:
        file = msgspec.toml.decode(raw, type=_File)
        _check(file)
    except msgspec.ValidationError as error:
        raise ConfigError(f"read {name}: {_explain(str(error))}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"read {name}: not TOML: {error}") from error
    except ValueError as error:
        raise ConfigError(f"read {name}: {error}") from error
    return CoefficientTable(file.name, file.version, file.basis, file.meter, file.cpu, file.reference)


def _check(file: _File) -> None:
    known = {reference.id for reference in file.reference}
    for what, names in (
        ("meter", [meter.name for meter in file.meter]),
        ("cpu", [row.name for row in file.cpu]),
        ("reference", [reference.id for reference in file.reference]),
    ):
        for twice in sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{what} {twice!r} is given twice")
    for meter in file.meter:
        _check_factor(f"meter {meter.name!r}", meter.factor, meter.references, known)
        if not meter.term:
            raise ValueError(f"meter {meter.name!r} has no [[meter.term]]")
        for term in meter.term:
            _check_term(meter, term)
        _check_number(f"meter {meter.name!r}: floor_w", meter.floor_w)
        if not meter.device and all(term.counter == ELAPSED for term in meter.term):
            raise ValueError(f"meter {meter.name!r} reads no counter: give it the device that it stands for")
    for row in file.cpu:
        _check_factor(f"cpu {row.name!r}", row.factor, row.references, known)
        if not 0 <= row.idle_w_per_thread <= row.max_w_per_thread < math.inf:
            raise ValueError(f"cpu {row.name!r}: idle_w_per_thread lies between 0 and max_w_per_thread")
        for pattern in row.match:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"cpu {row.name!r}: match {pattern!r}: {error}") from error


def _check_factor(where: str, factor: float, references: Iterable[str], known: set[str]) -> None:
    if not 1 <= factor < math.inf:
        raise ValueError(f"{where}: factor = {factor}: an x/÷ factor is at least 1")
    for reference in references:
        if reference not in known:
            raise ValueError(f"{where}: no [[reference]] {reference!r}{nearest(reference, known)}")


def _check_term(meter: MeterSpec, term: Term) -> None:
    where = f"meter {meter.name!r}, term {term.counter!r}"
    _check_number(f"{where}: joules_per_unit", term.joules_per_unit)
    if (term.counter == ELAPSED) == bool(term.source):
        raise ValueError(f"{where}: a counter has a source, and {ELAPSED!r} has none")


def _check_number(where: str, value: float | str) -> None:
    if not isinstance(value, str) and not 0 <= value < math.inf:
        raise ValueError(f"{where} = {value}: it must be a number of at least 0")


_PARTS: dict[str, type[msgspec.Struct]] = {
    "": _File, "meter": MeterSpec, "meter.term": Term, "cpu": CpuRow, "reference": Reference,
}  # fmt: skip


def _explain(problem: str) -> str:
    """Turn msgspec's words into ours, and name the nearest known key for an unknown one."""
    unknown = re.fullmatch(r"Object contains unknown field `(.+?)`(?: - at `\$\.?(.*)`)?", problem)
    if not unknown:
        return problem.replace("`$.", "`")
    # Sections are counted from 0: meter[0].term[1].
    key, section = unknown[1], unknown[2] or ""
    fields = _PARTS.get(re.sub(r"\[.*?\]", "", section), _File).__struct_fields__
    hint = nearest(key, fields) or f"; known here: {', '.join(fields)}"
    return f"unknown key {f'{section}.{key}' if section else key!r}{hint}"
