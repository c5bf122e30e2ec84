"""The job that all controllers are held against: five levels of 90 to 300 J, and all that goes wrong."""

import random

from greend.simulation.device import Device
from greend.simulation.workload import Contention, Workload, misjudged

DEVICE = Device(idle_w=60.0, saturated_w=300.0)
STEP_J = (90.0, 142.5, 195.0, 247.5, 300.0)
QUALITY = tuple(1 - (1 - joules / STEP_J[-1]) ** 2 for joules in STEP_J)
PRIOR_ERROR = 0.25
"""Of the agent's estimates: the standard deviation of a lognormal."""


def workload(dice, steps):
    """6 % noise, 15 % drift in mid-run, and a neighbour who makes a fifth of the steps a fifth longer."""
    first = dice.uniform(0.05, 0.75)
    return Workload.of(
        DEVICE,
        STEP_J,
        steps,
        QUALITY,
        noise=0.06,
        drift=0.15,
        contention=(Contention(first, first + 0.2, slowdown=1.2),),
        switch_j=600.0,
        switch_s=4.0,
    )


def step_most_j(workload):
    """Return what a step of the top is expected to use at its dearest."""
    return max(workload.step_j(DEVICE, workload.top, step) for step in range(0, workload.steps, 10))


def of_seed(seed, steps):
    """Return the workload and the agent's estimates of one seed."""
    dice = random.Random(seed)
    return workload(dice, steps), misjudged(STEP_J, PRIOR_ERROR, dice)
