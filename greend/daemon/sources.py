"""Which sources there are, in order of preference, and which of them work here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from greend.clock import Clock
from greend.config import Sources
from greend.errors import ConfigError, NotSupported
from greend.sources.fake import FakeSource
from greend.sources.host import HostSource
from greend.sources.nvml import NvmlSource
from greend.sources.rapl import RaplSource
from greend.sources.source import Source
from greend.units import nearest

NAMES = ("host", "rapl", "nvml", "fake")


@dataclass
class SourceSet:
    """The sources that the settings enable, probed once."""

    working: list[Source]
    states: dict[str, str]
    """Why a source is off, or an empty text, by name."""
    gpu_processes: Callable[[], dict[str, dict[int, float]]]

    @classmethod
    def of(cls, settings: Sources, clock: Clock) -> SourceSet:
        """Make and probe what is enabled.

        Raises ConfigError for an unknown name, NotSupported when none works here.
        """
        working: list[Source] = []
        states: dict[str, str] = {}
        gpu_processes: Callable[[], dict[str, dict[int, float]]] = dict
        for name in settings.enabled:
            source = _make(name, settings, clock)
            why_not = source.probe()
            states[name] = why_not or ""
            if why_not is None:
                working.append(source)
                if isinstance(source, NvmlSource):
                    gpu_processes = source.process_sm
        if not working:
            reasons = "; ".join(f"{name}: {why}" for name, why in states.items())
            raise NotSupported(f"no enabled source works on this machine: {reasons or 'none is enabled'}")
        return cls(working, states, gpu_processes)

    def close(self) -> None:
        """Close every source."""
        for source in self.working:
            source.close()


def _make(name: str, settings: Sources, clock: Clock) -> Source:
    match name:
        case "host":
            return HostSource()
        case "rapl":
            return RaplSource()
        case "nvml":
            return NvmlSource()
        case "fake":
            return FakeSource(clock, settings.fake_power_w)
    raise ConfigError(
        f"sources.enabled: no source is called {name!r}{nearest(name, NAMES)}; there are {', '.join(NAMES)}"
    )
