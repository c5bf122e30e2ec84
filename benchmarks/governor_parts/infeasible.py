"""Budgets that cannot be met: said within 50 steps at level 0, as an interval that holds the truth.

    python benchmarks/governor_parts/infeasible.py [--quick]

The jobs of the part `energy`, each given 60 to 95 % of what it would need at level 0 if steps went on to
cost what they cost at first. The first decision that says that the budget cannot be met counts; the truth
is what the job then uses, run on at level 0 to its end. That steps are to get 15 % dearer and that a
neighbour is to come, the interval cannot know, but has to allow for. Beside them stand as many jobs that
are given 120 %, which suffices for both, and none of which may be called infeasible at its end.
"""

import random
from statistics import fmean

import job
from part import main, over_seeds

from greend.governor.energy import EnergyBudget
from greend.governor.policy import Policy
from greend.simulation.plant import Plant
from greend.simulation.run import Known, run


def one(seed, steps, feasible):
    """Return when it was said, whether its interval holds the truth, how wide that is, and if it stood."""
    workload, costs = job.of_seed(seed, steps)
    needs_j = steps * job.STEP_J[0]
    share = 1.2 if feasible else random.Random(seed).uniform(0.6, 0.95)
    policy = Policy((EnergyBudget(share * needs_j, order="mixed", quality=job.QUALITY),))
    plant = Plant(workload, job.DEVICE, seed=seed)
    outcome = run(lambda now: policy, Known(costs, steps), plant)
    said = outcome.infeasible
    if not said:
        return None
    first = said[0]
    at_level_0 = next((d.at_step for d in outcome.decisions if d.level == 0), first.at_step)
    low_j, high_j = first.inputs["needs_low_j"], first.inputs["needs_high_j"]
    still = not outcome.decisions[-1].feasible
    return (
        max(first.at_step - at_level_0, 0),
        first.at_step,
        low_j <= plant.energy_j <= high_j,
        high_j / low_j - 1,
        still,
        plant.energy_j / (share * needs_j),
    )


def measure(quick):
    """Print how early it was said and how often rightly."""
    seeds, steps = (2, 20_000) if quick else (40, 20_000)
    rows = over_seeds(one, seeds, steps, False)
    said = [row for row in rows if row is not None]
    at_level_0, at_step, holds, width, _, _ = zip(*said, strict=True)
    print(f"{seeds} budgets of 60…95 % of the need at level 0: {len(said)} were called infeasible")
    print(
        f"  after {min(at_level_0)}…{max(at_level_0)} steps at level 0, "
        f"{min(at_step)}…{max(at_step)} steps in all"
    )
    print(f"  the interval holds what was used in {sum(holds)} of {len(said)}; it is {fmean(width):.0%} wide")
    enough = over_seeds(one, seeds, steps, True)
    wrongly = sum(row is not None and row[4] for row in enough)
    doubted = sum(row is not None for row in enough)
    print(f"{seeds} budgets of 120 % of it: {doubted} were doubted on the way, {wrongly} to the end\n")
    missed = seeds - len(said)
    return {
        "infeasible_steps": max(at_level_0) if not missed else steps,
        "infeasible_coverage": sum(holds) / seeds,
        "infeasible_wrongly": wrongly,
    }


if __name__ == "__main__":
    main(measure, __doc__)
