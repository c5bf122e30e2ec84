"""The policy rules in force: those of the settings, and those that were set by command."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from greend import wire
from greend.errors import ConfigError, NotFound, ProtocolError
from greend.governor.rules import Rule, parse

log = logging.getLogger("greend")

Body = Mapping[str, Any]


@dataclass
class RuleBook:
    """Policy rules by name. One set by command replaces that of the settings of the same name."""

    settings: Mapping[str, Body]
    save: Callable[[str, Body | None], None]
    """Keeps a rule set by command, or forgets it; raises StoreError, and then it is not in force."""
    _set: dict[str, dict[str, Any]] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        """Read the rules of the settings; raises ConfigError for one that makes no sense."""
        self._parse()

    def restore(self, kept: Mapping[str, Body]) -> None:
        """Take the rules that were set by command before; one that this version cannot read is left out."""
        for name, body in kept.items():
            try:
                parse(name, body)
            except ConfigError as error:
                log.warning("%s; it was set by another version, and is left out", error)
            else:
                self._set[name] = dict(body)
        self._parse()

    def set(self, name: str, body: Body | None) -> None:
        """Set a rule, or take away one that was set; raises ConfigError, NotFound, ProtocolError."""
        if body is None:
            if name not in self._set:
                if name in self.settings:
                    raise ProtocolError(f"remove policy {name!r}: it stands in the settings file; edit that")
                raise NotFound(f"remove policy {name!r}: there is none; `greend policy list` lists them")
            self.save(name, None)
            del self._set[name]
        else:
            parse(name, body)
            self.save(name, body)
            self._set[name] = dict(body)
        self._parse()

    def all(self) -> list[wire.RuleNow]:
        """Return every rule with its keys and where it comes from."""
        from_file = {n: b for n, b in self.settings.items() if n not in self._set}
        found = [wire.RuleNow(name, dict(body), "settings") for name, body in from_file.items()]
        return found + [wire.RuleNow(name, body, "command") for name, body in self._set.items()]

    def _parse(self) -> None:
        self.rules = tuple(parse(name, body) for name, body in {**self.settings, **self._set}.items())
