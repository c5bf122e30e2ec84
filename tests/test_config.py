"""Settings: what a file may say, what it may not, and where things lie when it says nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend import config
from greend.config import Config, load, parse
from greend.errors import ConfigError, PermissionDenied

SECTIONS = [section for section in Config.__struct_fields__ if section != "policies"]
KEYS = [(section, key) for section in SECTIONS for key in getattr(Config(), section).__struct_fields__]


def test_an_empty_file_is_the_defaults():
    assert parse("", "greend.toml") == Config()


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_every_default_can_be_written_in_the_file(section, key):
    default = getattr(getattr(Config(), section), key)

    # For these values JSON and TOML are written alike; what has no value cannot be written.
    line = f"{key} = {json.dumps(default)}" if default is not None else ""
    assert parse(f"[{section}]\n{line}", "greend.toml") == Config()


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_a_key_with_a_slip_of_the_pen_is_named_with_its_section_and_the_right_one(section, key):
    with pytest.raises(ConfigError) as error:
        parse(f"[{section}]\n{key}x = 1", "greend.toml")

    assert f"read greend.toml: unknown key '{section}.{key}x' (did you mean '{key}'?)" in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour = 1", "unknown key 'colour'; known here: daemon, sources, energy, retention, governor, "),
        ("[energy]\nxyz = 1", "unknown key 'energy.xyz'; known here: table"),
        ("[daemon]\nperiod_s = '1s'", "Expected `float`, got `str` - at `daemon.period_s`"),
        ("daemon = 3", "Expected `object`, got `int` - at `daemon`"),
        ("[sources]\nenabled = 'host'", "Expected `array`, got `str` - at `sources.enabled`"),
        ("[sources]\nenabled = [1]", "Expected `str`, got `int` - at `sources.enabled[0]`"),
        ("[daemon", "not TOML"),
        ("[daemon]\n[daemon]", "not TOML"),
        ("[daemon]\nperiod_s = 0.01", "daemon.period_s = 0.01: it must be at least 0.05"),
        ("[daemon]\nperiod_s = nan", "daemon.period_s = nan"),
        ("[daemon]\nflush_s = inf", "daemon.flush_s = inf: it must be at least 0.05 and finite"),
        ("[sources]\nfake_power_w = -1", "sources.fake_power_w = -1.0: it must be at least 0"),
        ("[retention]\nseconds_h = 0", "retention.seconds_h = 0.0: it must be at least 1"),
        ("[retention]\nminutes_d = -1", "retention.minutes_d = -1.0: it must be at least 1"),
        ("[governor]\nlease_ttl_s = 0", "governor.lease_ttl_s = 0.0: it must be at least 0.1"),
        ("[governor]\ndown_s = -1", "governor.down_s = -1.0: it must be at least 0"),
        ("[governor]\nup_s = inf", "governor.up_s = inf: it must be at least 0 and finite"),
        ("[governor]\nsafe_level = -1", "governor.safe_level = -1: it must be at least 0"),
        ("[governor]\non_loss = 'hold'", "Invalid enum value 'hold' - at `governor.on_loss`"),
        ("[pricing]\nintensity_g_per_kwh = nan", "pricing.intensity_g_per_kwh = nan: it must be at least 0"),
        ("[pricing]\nprice_per_kwh = -0.1", "pricing.price_per_kwh = -0.1: it must be at least 0"),
        ("[actuator]\nmax_slowdown = -1", "actuator.max_slowdown = -1.0: it must be at least 0"),
        ("[governor]\nwarmup_s = -1", "governor.warmup_s = -1.0: it must be at least 0"),
        ("[governor]\nreserve_share = 1", "governor.reserve_share = 1.0: a share lies between 0 and 1"),
        ("[governor]\nfinish_share = nan", "governor.finish_share = nan: a share"),
        ("[governor]\njob_budget = '3'", "governor.job_budget: read '3' as an energy: the unit is missing"),
        ("[governor]\njob_budget = '3 kw'", "unknown unit 'kw' (did you mean 'kWh'?)"),
        ("[daemon]\nsocket_mode = '0888'", "daemon.socket_mode = '0888': write it in octal"),
    ],
)
def test_what_does_not_fit_is_one_line_with_file_key_and_reason(text, words):
    with pytest.raises(ConfigError) as error:
        parse(text, "greend.toml")

    assert words in str(error.value)
    assert str(error.value).startswith("read greend.toml: ")
    assert "\n" not in str(error.value)


@given(st.binary(max_size=40) | st.text(max_size=40))
def test_whatever_a_file_holds_it_is_settings_or_a_clear_error(raw):
    try:
        assert isinstance(parse(raw, "f"), Config)
    except ConfigError as error:
        assert str(error).startswith("read f: ")


@pytest.mark.parametrize(("text", "joules"), [("", None), ("30kJ", 3e4), ("0.5 kWh", 1.8e6)])
def test_the_budget_of_jobs_that_name_none_is_in_joules(text, joules):
    assert parse(f"[governor]\njob_budget = '{text}'", "f").governor.job_budget_j == joules


def test_whole_numbers_will_do_where_a_fraction_may_stand():
    assert parse("[daemon]\nperiod_s = 2", "f").daemon.period_s == 2.0


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for variable in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_without_a_name_the_users_own_file_is_read_if_there_is_one(home):
    assert load(None) == Config()
    path = home / ".config/greend/greend.toml"
    path.parent.mkdir(parents=True)
    path.write_text("[daemon]\nperiod_s = 3")

    assert load(None).daemon.period_s == 3.0
    assert load(path) == load(None)


def test_a_named_file_must_be_there(home):
    with pytest.raises(ConfigError, match=r"nowhere\.toml: No such file or directory; name an existing file"):
        load(home / "nowhere.toml")


def test_a_folder_is_no_file(home):
    with pytest.raises(ConfigError, match="Is a directory"):
        load(home)


def test_a_file_that_may_not_be_read_is_a_matter_of_permission(home, monkeypatch):
    path = home / "greend.toml"
    path.write_text("")

    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    if os.geteuid() == 0:  # root may read everything
        monkeypatch.setattr(Path, "read_bytes", denied)
    path.chmod(0)
    with pytest.raises(PermissionDenied, match="permission denied"):
        load(path)


def test_places_follow_the_mode_and_the_file_overrules_it(home):
    empty, named = Config(), parse("[daemon]\nsocket = '~/s'\ndatabase = '~/d'\nsocket_mode = '660'", "f")

    assert config.socket_path(empty, "user") == home / ".local/state/greend/greend.sock"
    assert config.database_path(empty, "user") == home / ".local/state/greend/greend.db"
    assert config.socket_mode(empty, "user") == 0o600
    assert config.socket_path(empty, "system") == Path("/run/greend/greend.sock")
    assert config.database_path(empty, "system") == Path("/var/lib/greend/greend.db")
    assert config.socket_mode(empty, "system") == 0o660
    assert config.config_path("system") == Path("/etc/greend/greend.toml")
    for mode in ("user", "system"):
        assert config.socket_path(named, mode) == home / "s"
        assert config.database_path(named, mode) == home / "d"
        assert config.socket_mode(named, mode) == 0o660
