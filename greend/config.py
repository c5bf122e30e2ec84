"""Settings: frozen values with their defaults here, and a TOML file that may change them."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from greend import wire
from greend.errors import ConfigError, PermissionDenied, UnitError
from greend.units import nearest, parse_energy

SYSTEM_CONFIG = Path("/etc/greend/greend.toml")
SYSTEM_DATABASE = Path("/var/lib/greend/greend.db")


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file; a key that is not a field of it is an error."""


class Daemon(Section, frozen=True):
    """How often, and where to."""

    period_s: float = 1.0
    """Seconds between two looks at the counters."""
    flush_s: float = 10.0
    """Seconds between two writes to the database; a decision is written at once."""
    socket: str = ""
    """Unix socket; empty: the user's runtime folder, /run/greend with --system."""
    socket_mode: str = ""
    """Who may connect, in octal; empty: 0600, and 0660 (the group too) with --system."""
    database: str = ""
    """SQLite file; empty: the user's state folder, /var/lib/greend with --system."""


class Sources(Section, frozen=True):
    """Which counters to read, in this order; absent hardware is said, not an error."""

    enabled: tuple[str, ...] = ("host", "rapl", "nvml")
    fake_power_w: float = 50.0
    """Watts of the source `fake`, a package counter that anybody can try greend with."""


class Energy(Section, frozen=True):
    """How counters become joules."""

    table: str = ""
    """A coefficient table; empty: the one that greend ships."""


class Retention(Section, frozen=True):
    """How long each resolution is kept; hours and days are kept for ever."""

    seconds_h: float = 48.0
    minutes_d: float = 90.0


class Governor(Section, frozen=True):
    """How jobs are held against budgets."""

    job_budget: str = ""
    """Energy of each job that names none, e.g. "30kJ"; empty: no budget."""
    lease_ttl_s: float = 30.0
    """An agent that hears nothing for so long goes back to the top (a budget given by hand holds)."""
    down_s: float = 2.0
    """The least time between a change of a job's level and a fall, unless it is urgent."""
    up_s: float = 5.0
    """The least time between a change of a job's level and a rise."""
    warmup_s: float = 2.0
    """Time at the top before the first decision, to measure what a step costs."""
    finish_share: float = 0.3
    """Share of the steps that a job is to end with at the top."""
    reserve_share: float = 0.02
    """Share of a budget kept back for what follows the last step."""
    on_loss: Literal["top", "safe"] = "top"
    """What an agent does that hears nothing for the lease's time: back to the top, or to `safe_level`."""
    safe_level: int = 0
    """The level of `on_loss = "safe"`."""
    holds_may_raise: bool = False
    """A hold may also keep a job up against budgets; never against a power cap or for safety's sake."""

    @property
    def job_budget_j(self) -> float | None:
        """The default budget in joules, or None."""
        return parse_energy(self.job_budget) if self.job_budget else None


class Pricing(Section, frozen=True):
    """What a kWh emits and costs here; nothing is assumed, so that without a figure there are no grams."""

    intensity_g_per_kwh: float | None = None
    """Yearly mean of the grid, in gCO2e per kWh."""
    intensity_source: str = ""
    """Where that figure comes from, in words."""
    forecast: str = ""
    """A CSV file `start,g_per_kwh` (ISO 8601 times) that another program keeps fresh; empty: none."""
    price_per_kwh: float | None = None
    currency: str = ""
    """Of the price, as it is printed."""


class Actuator(Section, frozen=True):
    """The privileged process that turns device limits."""

    socket: str = ""
    """Where it listens; empty: /run/greend-actuator.sock where that is there."""
    search: bool = False
    """Search each job's energy-optimal device limit, and run it there, before its level is lowered."""
    max_slowdown: float = 0.1
    """How much longer a step may take for that, as a share."""


class Config(Section, frozen=True):
    """Everything that can be set; `greend daemon --config FILE` reads it from TOML."""

    daemon: Daemon = Daemon()
    sources: Sources = Sources()
    energy: Energy = Energy()
    retention: Retention = Retention()
    governor: Governor = Governor()
    pricing: Pricing = Pricing()
    actuator: Actuator = Actuator()
    policies: dict[str, dict[str, Any]] = {}
    """Policy rules by name; what may stand in one is said in `greend.governor.rules`."""


Mode = Literal["user", "system"]


def load(path: Path | None, mode: Mode = "user") -> Config:
    """Read the settings; with no path, the mode's own file if there is one, else the defaults.

    Raises ConfigError (with the key and the nearest known one) or PermissionDenied.
    """
    if path is None:
        path = config_path(mode)
        if not path.exists():
            return Config()
    try:
        raw = path.read_bytes()
    except PermissionError as error:
        raise PermissionDenied(f"read {path}: permission denied") from error
    except OSError as error:
        raise ConfigError(f"read {path}: {error.strerror}; name an existing file with --config") from error
    return parse(raw, str(path))


def parse(raw: bytes | str, name: str) -> Config:
    """Return the settings in a TOML text; `name` is how errors call it. Raises ConfigError."""
    try:
        config = msgspec.toml.decode(raw, type=Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"read {name}: {_explain(str(error))}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"read {name}: not TOML: {error}") from error
    try:
        _check(config)
    except ConfigError as error:
        raise ConfigError(f"read {name}: {error}") from error
    return config


def _check(config: Config) -> None:
    for where, value, low in (
        ("daemon.period_s", config.daemon.period_s, 0.05),
        ("daemon.flush_s", config.daemon.flush_s, 0.05),
        ("governor.lease_ttl_s", config.governor.lease_ttl_s, 0.1),
        ("governor.down_s", config.governor.down_s, 0.0),
        ("governor.up_s", config.governor.up_s, 0.0),
        ("governor.warmup_s", config.governor.warmup_s, 0.0),
        ("governor.safe_level", config.governor.safe_level, 0),
        ("sources.fake_power_w", config.sources.fake_power_w, 0.0),
        ("retention.seconds_h", config.retention.seconds_h, 1.0),
        ("retention.minutes_d", config.retention.minutes_d, 1.0),
        ("pricing.intensity_g_per_kwh", config.pricing.intensity_g_per_kwh, 0.0),
        ("pricing.price_per_kwh", config.pricing.price_per_kwh, 0.0),
        ("actuator.max_slowdown", config.actuator.max_slowdown, 0.0),
    ):
        if value is not None and not (value >= low and math.isfinite(value)):
            raise ConfigError(f"{where} = {value}: it must be at least {low:g} and finite")
    for where, value in (
        ("governor.finish_share", config.governor.finish_share),
        ("governor.reserve_share", config.governor.reserve_share),
    ):
        if not 0 <= value < 1:
            raise ConfigError(f"{where} = {value}: a share lies between 0 and 1")
    if config.daemon.socket_mode and not re.fullmatch("0?[0-7]{3}", config.daemon.socket_mode):
        raise ConfigError(f"daemon.socket_mode = {config.daemon.socket_mode!r}: write it in octal, as 0600")
    try:
        _ = config.governor.job_budget_j
    except UnitError as error:
        raise ConfigError(f"governor.job_budget: {error}") from error


def _explain(problem: str) -> str:
    """Turn msgspec's words into ours, and name the nearest known key for an unknown one."""
    unknown = re.fullmatch(r"Object contains unknown field `(.+?)`(?: - at `\$\.?(.*)`)?", problem)
    if not unknown:
        return problem.replace("`$.", "`")
    key, section = unknown[1], unknown[2] or ""
    kind: type[msgspec.Struct] = Config
    if section:
        kind = type(getattr(Config(), section))
    dotted = f"{section}.{key}" if section else key
    hint = nearest(key, kind.__struct_fields__) or f"; known here: {', '.join(kind.__struct_fields__)}"
    return f"unknown key {dotted!r}{hint}"


def config_path(mode: Mode) -> Path:
    """Where the settings lie by default."""
    return SYSTEM_CONFIG if mode == "system" else xdg("XDG_CONFIG_HOME", ".config") / "greend.toml"


def socket_path(config: Config, mode: Mode) -> Path:
    """Where the daemon listens."""
    if config.daemon.socket:
        return Path(config.daemon.socket).expanduser()
    return wire.SYSTEM_SOCKET if mode == "system" else wire.user_socket()


def socket_mode(config: Config, mode: Mode) -> int:
    """Who may connect: file mode bits."""
    return int(config.daemon.socket_mode or ("0660" if mode == "system" else "0600"), 8)


def database_path(config: Config, mode: Mode) -> Path:
    """Where the history lies."""
    if config.daemon.database:
        return Path(config.daemon.database).expanduser()
    return SYSTEM_DATABASE if mode == "system" else xdg("XDG_STATE_HOME", ".local/state") / "greend.db"


def xdg(variable: str, default: str) -> Path:
    """Return greend's folder below an XDG base folder."""
    base = os.environ.get(variable)
    return (Path(base) if base else Path.home() / default) / "greend"
