"""The coefficient table: the one that ships is sound, and a wrong one is said in words."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import pytest

from greend.energy.coefficients import CoefficientTable, load_table, parse
from greend.errors import ConfigError, PermissionDenied

TABLE = load_table()

GOOD = """
name = "mine"
version = 3
[[meter]]
name = "m"
component = "cpu"
source = "words"
quality = "measured"
factor = 1.1
basis = "why"
[[meter.term]]
source = "rapl"
device = "package-*"
counter = "package_energy_uj"
joules_per_unit = 1e-6
[[cpu]]
name = "c"
idle_w_per_thread = 1.0
max_w_per_thread = 2.0
factor = 1.5
basis = "why"
"""


def test_the_table_has_a_name_and_a_version() -> None:
    assert TABLE.label == "default@1"
    assert parse(GOOD, "x").label == "mine@3"


def test_every_figure_that_ships_says_where_it_is_from() -> None:
    ids = {reference.id for reference in TABLE.references}
    used = {r for part in (*TABLE.meters, *TABLE.cpus) for r in part.references}

    assert all(part.basis for part in (*TABLE.meters, *TABLE.cpus))
    assert all(row.references for row in TABLE.cpus)
    assert all(m.references or m.quality == "assumed" for m in TABLE.meters)
    assert ids == used


def test_the_row_for_any_cpu_is_the_geometric_mean_of_the_families() -> None:
    *families, world = TABLE.cpus
    assert not world.match
    assert all(row.match for row in families)

    idle = [math.log(row.idle_w_per_thread) for row in families]
    busy = [math.log(row.busy_w_per_thread) for row in families]
    assert world.idle_w_per_thread == pytest.approx(math.exp(statistics.mean(idle)), rel=1e-3)
    assert world.busy_w_per_thread == pytest.approx(math.exp(statistics.mean(busy)), rel=1e-3)
    spread = max(math.exp(1.96 * statistics.stdev(logs)) for logs in (idle, busy))
    assert spread <= world.factor <= spread + 0.1


@pytest.mark.parametrize(
    ("cpu_model", "row"),
    [
        ("AMD EPYC 7601 32-Core Processor family 23 model 1 stepping 2", "EPYC 1st Gen"),
        ("AMD EPYC 7R32 family 23 model 49 stepping 0", "EPYC 2nd Gen"),
        ("AMD EPYC 7402P 24-Core Processor", "EPYC 2nd Gen"),
        ("AMD EPYC 7B13 family 25 model 1 stepping 0", "EPYC 3rd Gen"),
        ("AMD EPYC 7763 64-Core Processor family 25 model 1 stepping 1", "EPYC 3rd Gen"),
        ("AMD EPYC 9654 96-Core Processor family 25 model 17 stepping 1", "EPYC 4th Gen"),
        ("AMD EPYC 8024P 8-Core Processor family 25 model 160 stepping 2", "EPYC 4th Gen"),
        ("AMD EPYC family 25 model 17 stepping 1", "EPYC 4th Gen"),
        ("AMD EPYC 9655 96-Core Processor family 26 model 2 stepping 1", "any CPU"),
        ("AMD Ryzen 9 7950X 16-Core Processor family 25 model 97 stepping 2", "any CPU"),
        ("AMD Ryzen 7 1700 Eight-Core Processor family 23 model 1 stepping 1", "any CPU"),
        ("Intel(R) Xeon(R) CPU E5-2670 0 @ 2.60GHz family 6 model 45 stepping 7", "Sandy Bridge"),
        ("Intel(R) Xeon(R) CPU E5-2680 v2 @ 2.80GHz family 6 model 62 stepping 4", "Ivy Bridge"),
        ("Intel(R) Xeon(R) CPU E5-2620 v3 @ 2.40GHz family 6 model 63 stepping 2", "Haswell"),
        ("Intel(R) Xeon(R) CPU E5-2686 v4 @ 2.30GHz family 6 model 79 stepping 1", "Broadwell"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz family 6 model 79 stepping 0", "Broadwell"),
        ("Intel(R) Xeon(R) E-2288G CPU @ 3.70GHz family 6 model 158 stepping 13", "Coffee Lake"),
        ("Intel(R) Core(TM) i7-8700B CPU @ 3.20GHz family 6 model 158 stepping 10", "Coffee Lake"),
        ("Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz family 6 model 142 stepping 10", "any CPU"),
        ("Intel(R) Xeon(R) Platinum 8176M CPU @ 2.10GHz family 6 model 85 stepping 4", "Skylake"),
        ("Intel Xeon Processor (Skylake, IBRS) family 6 model 85 stepping 4", "Skylake"),
        ("Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz family 6 model 85 stepping 7", "Cascade Lake"),
        ("Intel(R) Xeon(R) CPU @ 2.80GHz family 6 model 85 stepping 7", "Cascade Lake"),
        ("Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz family 6 model 106 stepping 6", "Ice Lake"),
        ("Intel(R) Xeon(R) Platinum 8380H CPU @ 2.90GHz family 6 model 85 stepping 11", "any CPU"),
        ("Intel(R) Xeon(R) Platinum 8480CL family 6 model 143 stepping 7", "Sapphire Rapids"),
        ("INTEL(R) XEON(R) PLATINUM 8592+ family 6 model 207 stepping 2", "Emerald Rapids"),
        ("Intel(R) Xeon(R) 6979P family 6 model 173 stepping 1", "Granite Rapids"),
        ("QEMU Virtual CPU version 2.5+ family 15 model 107 stepping 1", "any CPU"),
        ("Neoverse-N1", "any CPU"),
        ("", "any CPU"),
    ],
)
def test_a_cpu_is_known_by_its_name_or_by_its_family_and_model(cpu_model: str, row: str) -> None:
    found = TABLE.cpu_row(cpu_model)

    assert found is not None
    assert row == found.name


def test_a_table_may_know_no_cpu() -> None:
    assert parse('name = "none"\nversion = 1', "x").cpu_row("AMD EPYC") is None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("version = 3", "verison = 3", "unknown key 'verison' (did you mean 'version'?)"),
        ("factor = 1.1", "factr = 1.1", "unknown key 'meter[0].factr' (did you mean 'factor'?)"),
        (
            "joules_per_unit",
            "joules_per_unti",
            "unknown key 'meter[0].term[0].joules_per_unti' (did you mean",
        ),
        ("max_w_per_thread", "zzz", "unknown key 'cpu[0].zzz'; known here: name, idle_w_per_thread"),
        ("factor = 1.1", "factor = 0.9", "meter 'm': factor = 0.9: an x/÷ factor is at least 1"),
        ("1e-6", "-1.0", "meter 'm', term 'package_energy_uj': joules_per_unit = -1.0"),
        ("1e-6", "nan", "it must be a number of at least 0"),
        ('source = "rapl"\n', "", "a counter has a source, and 'elapsed' has none"),
        ("factor = 1.5", 'factor = 1.5\nmatch = ["("]', "cpu 'c': match '('"),
        ("idle_w_per_thread = 1.0", "idle_w_per_thread = 3.0", "between 0 and max_w_per_thread"),
        ("factor = 1.1", 'factor = 1.1\nreferences = ["x"]', "meter 'm': no [[reference]] 'x'"),
        ("factor = 1.1", "factor = 1.1\nfloor_w = -1", "floor_w = -1"),
        ('quality = "measured"', 'quality = "guessed"', "Invalid enum value 'guessed'"),
        ("version = 3", "version =", "not TOML"),
    ],
)
def test_a_wrong_table_is_an_error_that_says_where(old: str, new: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(GOOD.replace(old, new), "my.toml")

    assert str(caught.value).startswith("read my.toml: ")
    assert words in str(caught.value)


def test_a_meter_needs_a_term_and_names_that_are_its_own() -> None:
    meter = GOOD.split("[[meter]]")[1].split("[[cpu]]")[0]
    for text, words in (
        (GOOD.replace("[[cpu]]", "[[meter]]" + meter + "[[cpu]]"), "meter 'm' is given twice"),
        (GOOD.split("[[meter.term]]")[0].replace("basis", "term = []\nbasis"), "has no [[meter.term]]"),
        (
            GOOD.replace('counter = "package_energy_uj"', 'counter = "elapsed"').replace(
                'source = "rapl"\n', ""
            ),
            "reads no counter",
        ),
    ):
        with pytest.raises(ConfigError, match=words.replace("[", r"\[").replace("]", r"\]")):
            parse(text, "x")


def test_a_table_of_ones_own_is_read_from_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)

    assert isinstance(load_table(path), CoefficientTable)
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        load_table(tmp_path / "none.toml")


def test_a_table_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(PermissionDenied, match="permission denied"):
        load_table(tmp_path / "mine.toml")
