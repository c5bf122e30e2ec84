"""Whose joules: the parts of each component go to jobs, to idle and to what is nobody's (pure).

Policy `node`: what the machine would have used anyway stays with the machine, under `idle`; only what running
programs added is split. The shares of a component add up to it exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from greend.types import IDLE, OTHER, Component, ComponentEnergy, Consumer, Share, Usage


def split(energies: Sequence[ComponentEnergy], busy_s: float, usages: Sequence[Usage]) -> list[Share]:
    """Return each component's joules by consumer; the shares of a component add up to it.

    Dynamic CPU joules go by CPU time: a consumer's core-seconds of all busy core-seconds of the machine
    (`busy_s`, which counts as no less than the sum of the usages, since both are read at slightly different
    instants), the rest to OTHER. CPU time knows nothing of frequency, vector units or memory: between jobs
    of different kind it is 10-20 % off. Dynamic GPU joules go by seconds of multiprocessor use among the
    consumers seen on that GPU, to OTHER when none was. Dynamic joules of memory, disks and network go to
    OTHER: nothing here says whose they are. Raises nothing.
    """
    cpu = _weights([(usage.consumer, usage.cpu_s) for usage in usages])
    rest_s = busy_s - math.fsum(cpu.values())
    if rest_s > 0:
        cpu[OTHER] = cpu.pop(OTHER, 0.0) + rest_s
    shares: list[Share] = []
    for energy in energies:
        component = energy.component
        if component.kind == "cpu":
            weights = cpu
        elif component.kind == "gpu":
            weights = _weights(
                [(usage.consumer, usage.gpu_sm_s.get(component.device, 0.0)) for usage in usages]
            )
        else:
            weights = {}
        shares += _shares(energy, component, weights)
    return shares


def _weights(amounts: Sequence[tuple[Consumer, float]]) -> dict[Consumer, float]:
    """Sum by consumer, leaving out who used nothing."""
    weights: dict[Consumer, float] = {}
    for consumer, amount in amounts:
        if amount > 0:
            weights[consumer] = weights.get(consumer, 0.0) + amount
    return weights


def _shares(energy: ComponentEnergy, component: Component, weights: dict[Consumer, float]) -> list[Share]:
    parts: dict[Consumer, float] = {}
    if energy.idle_j > 0:
        parts[IDLE] = energy.idle_j
    if energy.dynamic_j > 0 or not parts:
        total = math.fsum(weights.values())
        given = [(consumer, weight / total) for consumer, weight in weights.items()] or [(OTHER, 1.0)]
        for consumer, fraction in given[:-1]:
            parts[consumer] = parts.get(consumer, 0.0) + energy.dynamic_j * fraction
        # The last takes what is left, so that no rounding is lost.
        last = given[-1][0]
        left = energy.energy_j - math.fsum(parts.values())
        parts[last] = parts.get(last, 0.0) + max(0.0, left)
    return [Share(component, consumer, energy_j, energy.meter) for consumer, energy_j in parts.items()]
