"""An unknown number of steps: no job whose length is like that of earlier runs stops before 98 % of it.

    python benchmarks/governor_parts/unknown.py [--quick]

The jobs of the part `energy`, without drift and neighbour, whose number of steps nobody says. It is drawn
as those of ten earlier runs were, a lognormal with a standard deviation of 20 %; the budget carries the
median run at 70 %. The naive controller takes the last run's length, or the mean, for known. Steps count
that were made within the budget; runs that level 0 could not have carried to the end either are drawn
again.
"""

import random
from dataclasses import replace
from statistics import fmean

import job
from part import main, over_seeds

from greend.governor.energy import EnergyBudget
from greend.governor.policy import Policy
from greend.simulation.plant import Plant
from greend.simulation.run import Known, run

SPREAD = 0.2
WAYS = {
    "the last run's length": lambda before: Known((), steps_total=before[0]),
    "the mean of the runs": lambda before: Known((), steps_total=round(fmean(before))),
    "greend, from the runs": lambda before: Known((), steps_before=before),
    "greend, from one run": lambda before: Known((), steps_before=before[:1]),
    "greend, from none": lambda before: Known(()),
}


def one(seed, median, name):
    """Return the share of the steps that were made within the budget, the budget used, and quality."""
    dice = random.Random(seed)
    before = tuple(round(median * dice.lognormvariate(0, SPREAD)) for _ in range(10))
    budget_j = 0.7 * job.STEP_J[-1] * median
    steps = round(median * dice.lognormvariate(0, SPREAD))
    while steps * job.STEP_J[0] > 0.95 * budget_j:
        steps = round(median * dice.lognormvariate(0, SPREAD))
    workload, costs = job.of_seed(seed, steps)
    workload = replace(workload, drift=0.0, contention=())
    plant = Plant(workload, job.DEVICE, seed=seed, within_j=budget_j)
    policy = Policy((EnergyBudget(budget_j, order="mixed", quality=job.QUALITY),))
    known = replace(WAYS[name](before), costs=costs)
    run(lambda now: policy, known, plant)
    return plant.steps_within / steps, min(plant.energy_j / budget_j, 1.0), plant.quality_within / steps


def measure(quick):
    """Print a row for each way to guess the length."""
    seeds, median = (4, 2000) if quick else (40, 10_000)
    print(f"{seeds} seeds, runs of about {median} steps")
    print(f"{'':<26}{'steps made':>22}{'budget used':>13}{'quality':>9}")
    least = {}
    for name in WAYS:
        made, used, quality = zip(*over_seeds(one, seeds, median, name), strict=True)
        least[name] = min(made)
        print(
            f"{name:<26}{fmean(made):>8.3f} (least {min(made):.3f})"
            f"{fmean(used):>13.3f}{fmean(quality):>9.3f}",
            flush=True,
        )
    print()
    return {
        "unknown_n_steps": least["greend, from the runs"],
        "unknown_n_steps_naive": least["the mean of the runs"],
    }


if __name__ == "__main__":
    main(measure, __doc__)
