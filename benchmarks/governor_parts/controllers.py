"""What the governor is compared with: four simple controllers, and a clairvoyant that no controller beats."""

from itertools import pairwise

from greend.wire import Directive


class Static:
    """The highest level whose estimated cost fits, for the whole job."""

    def __init__(self, costs_j, quality, budget_j, steps):
        fitting = [level for level, cost in enumerate(costs_j) if cost * steps <= budget_j]
        self.level = max(fitting, default=0)

    def turn(self, spent_j, steps):
        return self.level


class StepUpDown:
    """Every ten steps one level down when they cost more than the rest may, else one up."""

    def __init__(self, costs_j, quality, budget_j, steps):
        self.top, self.budget_j, self.total = len(costs_j) - 1, budget_j, steps
        self.level, self.at, self.at_j = self.top, 0, 0.0

    def turn(self, spent_j, steps):
        if steps - self.at >= 10:
            allowed_j = (self.budget_j - spent_j) / max(self.total - steps, 1)
            dear = (spent_j - self.at_j) / (steps - self.at) > allowed_j
            self.level = min(max(self.level + (-1 if dear else 1), 0), self.top)
            self.at, self.at_j = steps, spent_j
        return self.level


class DualPacing:
    """A price on joules that rises while steps cost more than the budget's mean, on estimated costs."""

    def __init__(self, costs_j, quality, budget_j, steps):
        self.costs_j, self.quality = costs_j, quality
        self.mean_j = budget_j / steps
        self.rate = 0.003 * quality[-1] / costs_j[-1] / self.mean_j
        self.price, self.steps, self.spent_j = 0.0, 0, 0.0

    def turn(self, spent_j, steps):
        over_j = spent_j - self.spent_j - self.mean_j * (steps - self.steps)
        self.price = max(self.price + self.rate * over_j, 0.0)
        self.steps, self.spent_j = steps, spent_j
        worth = [q - self.price * cost for q, cost in zip(self.quality, self.costs_j, strict=True)]
        return max(range(len(worth)), key=worth.__getitem__)


class Alarms:
    """The top until 85 % of the budget is used, then a level less, at 90 % another, at 95 % the least."""

    def __init__(self, costs_j, quality, budget_j, steps):
        self.top, self.budget_j = len(costs_j) - 1, budget_j

    def turn(self, spent_j, steps):
        used = spent_j / self.budget_j
        if used >= 0.95:
            return 0
        return max(self.top - (used >= 0.85) - (used >= 0.90), 0)


def hold(controller, plant, budget_j, tick_s=1.0):
    """Run a plant under a controller, which sees exact joules and steps, until the budget is used."""
    level, seq = plant.level, 0
    while not plant.done and plant.energy_j < budget_j:
        plant.advance(tick_s)
        wanted = controller.turn(plant.energy_j, plant.steps)
        if wanted != level:
            level, seq = wanted, seq + 1
            plant.obey(Directive(seq, level, "", 30.0), plant.now_s)


def clairvoyant(workload, device, budget_j):
    """Return the quality of the best plan there is, as a share of all steps at the top.

    It knows every cost and the drift before the first step, pays nothing for a switch, and meets no
    contention: the increments of quality per joule along the hull of both halves, dearest last.
    """
    before = round(workload.drift_at * workload.steps)
    left_j, quality, climbs = budget_j - workload.startup_j - workload.tail_j, 0.0, []
    for first, count in ((0, before), (before, workload.steps - before)):
        costs = [workload.step_j(device, level, first, disturbed=False) for level in range(workload.top + 1)]
        left_j -= costs[0] * count
        quality += workload.quality[0] * count
        for (a_j, a_q), (b_j, b_q) in pairwise(_hull(list(zip(costs, workload.quality, strict=True)))):
            climbs.append(((b_q - a_q) / (b_j - a_j), (b_j - a_j) * count))
    for slope, room_j in sorted(climbs, reverse=True):
        taken_j = min(room_j, left_j)
        quality, left_j = quality + slope * taken_j, left_j - taken_j
    return quality / workload.steps


def _hull(points):
    hull = [points[0]]
    for point in points[1:]:
        while len(hull) >= 2 and _slope(hull[-2], point) >= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(point)
    return hull


def _slope(a, b):
    return (b[1] - a[1]) / (b[0] - a[0])
