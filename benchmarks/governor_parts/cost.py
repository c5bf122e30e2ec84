"""What one turn of the governor costs: a decision under six constraints and what it learns, per job.

    python benchmarks/governor_parts/cost.py [--quick]

CPU time of this process, in µs per job and turn, for a job of eight levels that is held to an energy
budget in either order, a power cap, a deadline, two pressures and a user's hold.
"""

import random
import time
from statistics import median

from part import main

from greend.clock import ManualClock
from greend.governor.conditions import Conditions, Machine
from greend.governor.deadline import Deadline
from greend.governor.decide import decide
from greend.governor.energy import EnergyBudget
from greend.governor.hold import Hold
from greend.governor.policy import Policy, State
from greend.governor.power import PowerCap
from greend.governor.pressure import Pressure
from greend.governor.profile import LevelProfile

LEVELS = 8
STEPS = 200_000
MACHINE = Machine(cpu_share=0.6, cpu_stalled=0.02, memory_stalled=0.0, gpu_share=0.9, temperature_c=60.0)


def turns_us(order, turns):
    """Return µs of CPU per turn, one figure for each hundred turns: to learn from it, and to decide."""
    dice, clock = random.Random(1), ManualClock()
    costs = tuple((level + 1) / LEVELS for level in range(LEVELS))
    started = clock.now()
    policy = Policy(
        (
            EnergyBudget(0.7 * STEPS, order=order),
            PowerCap(60.0),
            Deadline(started.after(10 * STEPS).wall_ns),
            Pressure("cpu_stalled", 0.6),
            Pressure("temperature", 85.0),
            Hold("ana", LEVELS - 1, "a demonstration"),
        )
    )
    profile, state = LevelProfile.prior(costs), State()
    level, spent_j, done, taken = LEVELS - 1, 0.0, 0.0, []
    for _ in range(turns // 100):
        began = time.process_time()
        for _ in range(100):
            now = clock.advance(1.0)
            used_j = 40.0 * costs[level] * dice.gauss(1, 0.03)
            spent_j, done = spent_j + used_j, done + 40.0
            profile = profile.observe(level, used_j, 40.0, 1.0)
            conditions = Conditions(
                profile, spent_j, done, STEPS, level=level, started=started, attached=started,
                machine=MACHINE, switch_s=0.1, switch_j=1.0,
            )  # fmt: skip
            decision, state = decide(policy, state, conditions, now)
            level = decision.level
        taken.append((time.process_time() - began) * 1e6 / 100)
    return taken


def measure(quick):
    """Print µs per turn for both orders, and return the larger median."""
    turns = 500 if quick else 4000
    medians = []
    for order in ("rising", "mixed"):
        taken = turns_us(order, turns)
        medians.append(median(taken))
        print(
            f"{order:<8} {median(taken):6.0f} µs a turn with {LEVELS} levels, six constraints "
            f"({min(taken):.0f}…{max(taken):.0f} over hundreds of turns)"
        )
    print()
    return {"decision_us": max(medians)}


if __name__ == "__main__":
    main(measure, __doc__)
