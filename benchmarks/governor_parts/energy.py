"""An energy budget over 20 000 steps: all are made, it is not passed by a step, and little quality is lost.

    python benchmarks/governor_parts/energy.py [--quick]

A simulated job of five levels, 90 to 300 J a step, is given 70 % of what it would use at the top. The
agent's estimates are off by 25 % (lognormal), steps scatter by 6 %, get 15 % dearer in mid-run, and for a
fifth of them a neighbour makes them take 20 % longer; a change of level costs 600 J and 4 s. Every
controller meets the same jobs. Quality is what the steps made within the budget are worth, 1 - (1 - cost)²
each, as all controllers are told, against that of a clairvoyant that knows costs and drift, pays no switch
and meets no neighbour.
"""

from statistics import fmean

import controllers
import job
from part import main, over_seeds

from greend.governor.energy import EnergyBudget
from greend.governor.policy import Policy
from greend.simulation.plant import Plant
from greend.simulation.run import Known, run

RIVALS = {
    "static level by estimates": controllers.Static,
    "alarms at 85/90/95 %": controllers.Alarms,
    "step up/down": controllers.StepUpDown,
    "dual pacing": controllers.DualPacing,
}
GOVERNORS = {
    "greend, mixed": ("mixed", 0.7),
    "greend, rising": ("rising", 0.7),
    "greend, mixed, 45 %": ("mixed", 0.45),
}


def governed(seed, steps, order, share):
    """Return steps made within the budget and one step, use, overrun, quality and switches of one job."""
    workload, costs = job.of_seed(seed, steps)
    budget_j = share * job.STEP_J[-1] * steps
    policy = Policy((EnergyBudget(budget_j, order=order, quality=job.QUALITY),))
    # What the contract allows is the budget and one step: only what was made within that counts.
    plant = Plant(workload, job.DEVICE, seed=seed, within_j=budget_j + job.step_most_j(workload))
    run(lambda now: policy, Known(costs, steps), plant)
    return _figures(plant, workload, budget_j)


def rival(seed, steps, name):
    """Return the same of a simple controller, which is stopped when the budget is used."""
    workload, costs = job.of_seed(seed, steps)
    budget_j = 0.7 * job.STEP_J[-1] * steps
    plant = Plant(workload, job.DEVICE, seed=seed, within_j=budget_j + job.step_most_j(workload))
    costs_j = [cost * job.STEP_J[-1] for cost in costs]
    controllers.hold(RIVALS[name](costs_j, job.QUALITY, budget_j, steps), plant, budget_j)
    return _figures(plant, workload, budget_j)


def _figures(plant, workload, budget_j):
    best = controllers.clairvoyant(workload, job.DEVICE, budget_j)
    step_j = workload.step_j(job.DEVICE, plant.level, workload.steps)
    return (
        plant.steps_within / workload.steps,
        plant.energy_j / budget_j,
        max(plant.energy_j - budget_j, 0.0) / step_j,
        plant.quality_within / workload.steps / best,
        plant.switches,
    )


def measure(quick):
    """Print a row for each controller, and return the figures of the mixed order."""
    seeds, steps = (2, 20_000) if quick else (40, 20_000)
    print(f"{seeds} seeds of {steps} steps; ranges are least and most over the seeds")
    print(f"{'':<28}{'steps done':>15}{'budget used':>15}{'overrun':>10}{'quality':>18}{'switches':>14}")
    figures = {}
    for name in RIVALS:
        _row(name, over_seeds(rival, seeds, steps, name))
    for name, (order, share) in GOVERNORS.items():
        rows = over_seeds(governed, seeds, steps, order, share)
        _row(name, rows)
        if name == "greend, mixed":
            done, _, overrun, quality, switches = zip(*rows, strict=True)
            figures = {
                "steps_done": min(done),
                "overrun_steps_max": max(overrun),
                "quality_mean": fmean(quality),
                "quality_worst": min(quality),
                "switches": max(switches),
            }
    print()
    return figures


def _row(name, rows):
    done, used, overrun, quality, switches = zip(*rows, strict=True)
    print(
        f"{name:<28}{min(done):>7.3f}…{max(done):.3f} {min(used):>8.3f}…{max(used):.3f}"
        f"{max(overrun):>6.2f} st{fmean(quality):>7.3f} ({min(quality):.3f}…)"
        f"{min(switches):>8}…{max(switches)}",
        flush=True,
    )


if __name__ == "__main__":
    main(measure, __doc__)
