"""Whose joules: the shares of a component add up to it, whatever was measured."""

from __future__ import annotations

import math
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greend.attribution import split
from greend.types import IDLE, OTHER, Component, ComponentEnergy, Consumer, Meter, Quality, Share, Usage

METER = Meter("rapl-package", "RAPL package", Quality.MEASURED, 0.05, "default@1")
CPU, DRAM = Component("cpu", "package-0"), Component("dram", "dram-0")
GPU0, GPU1 = Component("gpu", "gpu-0"), Component("gpu", "gpu-1")
ANA, BEN = Consumer("job", "j-ana"), Consumer("job", "j-ben")


def energy(component: Component = CPU, idle_j: float = 10.0, dynamic_j: float = 40.0) -> ComponentEnergy:
    return ComponentEnergy(component, idle_j, dynamic_j, METER)


def by_consumer(shares: list[Share]) -> dict[Consumer, float]:
    return {share.consumer: share.energy_j for share in shares}


@pytest.mark.parametrize(
    ("busy_s", "usages", "expected"),
    [
        pytest.param(2.0, [], {IDLE: 10, OTHER: 40}, id="no job runs"),
        pytest.param(
            2.0, [Usage(ANA, 1.0)], {IDLE: 10, ANA: 20, OTHER: 20}, id="a job has half the CPU time"
        ),
        pytest.param(
            2.0, [Usage(ANA, 0.5), Usage(BEN, 1.5)], {IDLE: 10, ANA: 10, BEN: 30}, id="two have all"
        ),
        pytest.param(1.0, [Usage(ANA, 2.0)], {IDLE: 10, ANA: 40}, id="a job seems to have more than all"),
        pytest.param(0.0, [Usage(ANA, 0.0)], {IDLE: 10, OTHER: 40}, id="nothing was counted"),
        pytest.param(
            2.0, [Usage(ANA, 0.5), Usage(ANA, 0.5)], {IDLE: 10, ANA: 20, OTHER: 20}, id="one job twice"
        ),
        pytest.param(2.0, [Usage(OTHER, 1.0)], {IDLE: 10, OTHER: 40}, id="nobody's processes are given too"),
    ],
)
def test_dynamic_cpu_joules_go_by_cpu_time(
    busy_s: float, usages: list[Usage], expected: dict[Consumer, float]
) -> None:
    assert by_consumer(split([energy()], busy_s, usages)) == pytest.approx(expected)


def test_gpu_joules_go_by_multiprocessor_time_on_that_gpu() -> None:
    usages = [Usage(ANA, 1.0, {"gpu-0": 0.75}), Usage(BEN, 1.0, {"gpu-0": 0.25})]

    shares = split([energy(GPU0, 10, 40), energy(GPU1, 5, 20)], 8.0, usages)

    assert by_consumer([s for s in shares if s.component == GPU0]) == {IDLE: 10, ANA: 30, BEN: 10}
    assert by_consumer([s for s in shares if s.component == GPU1]) == {IDLE: 5, OTHER: 20}


def test_memory_that_was_in_use_is_nobodys() -> None:
    assert by_consumer(split([energy(DRAM, 3, 4)], 1.0, [Usage(ANA, 1.0)])) == {IDLE: 3, OTHER: 4}


def test_every_component_has_a_share_even_of_nothing() -> None:
    assert by_consumer(split([energy(CPU, 0, 0)], 1.0, [])) == {OTHER: 0}


def test_a_share_says_how_its_joules_are_known() -> None:
    assert {share.meter for share in split([energy()], 1.0, [Usage(ANA, 1.0)])} == {METER}


joules = st.floats(0, 1e9)
seconds = st.floats(0, 1e6)
usage = st.builds(
    Usage,
    st.sampled_from([ANA, BEN, OTHER, IDLE]) | st.integers(0, 20).map(lambda i: Consumer("job", str(i))),
    seconds,
    st.dictionaries(st.sampled_from(["gpu-0", "gpu-1"]), seconds),
)
component = st.sampled_from([CPU, DRAM, GPU0, GPU1, Component("cpu", "package-1"), Component("disk", "disk")])


@settings(deadline=None)  # a busy machine is not a wrong answer
@given(
    energies=st.lists(st.builds(energy, component, joules, joules), unique_by=lambda e: e.component),
    busy_s=seconds,
    usages=st.lists(usage, max_size=12),
)
def test_the_shares_of_a_component_add_up_to_it(
    energies: list[ComponentEnergy], busy_s: float, usages: list[Usage]
) -> None:
    shares: dict[Component, list[Share]] = defaultdict(list)
    for share in split(energies, busy_s, usages):
        shares[share.component].append(share)
        assert share.energy_j >= 0

    assert set(shares) == {e.component for e in energies}
    for e in energies:
        total = math.fsum(share.energy_j for share in shares[e.component])
        assert total == pytest.approx(e.energy_j, rel=1e-9, abs=0)
        consumers = [share.consumer for share in shares[e.component]]
        assert len(consumers) == len(set(consumers))
