"""The contract of a source of counters."""

from __future__ import annotations

from typing import Protocol

from greend.types import Reading


class Source(Protocol):
    """Something that can be probed, and read once per tick.

    A source neither sleeps nor starts a process, and keeps its files open between reads (a kept descriptor
    costs 1-2 us a counter, opening it each time 24 us).
    """

    name: str
    problems: dict[str, str]
    """Devices that the last read had to leave out, and why, in words."""

    def probe(self) -> str | None:
        """Return None if the source can be read, else why not, in words that a user can act on."""
        ...

    def read(self) -> list[Reading]:
        """Return one reading per counter, as the hardware gives it.

        A device that fails is left out and named in `problems`; the others go on. Raises SourceError when
        nothing at all could be read; the next read may succeed.
        """
        ...

    def close(self) -> None:
        """Give back files and libraries; reading again opens them anew."""
        ...
