"""Claim: models of many families narrow without a line of theirs changed, as promised, planned in seconds.

    python benchmarks/elastic_parts/families.py [--quick]

Each family is planned once, and what the plan promises is checked beside the planner: at every level, on
inputs that the planner has not seen, a narrowed copy against a full copy that is blind to what is left
out (outputs, readers, gradients); bit for bit the same after top, least, next, top; nothing moved outside
the windows in a step at each level. A family counts as converted only if it has a level below the top and
all of this holds. FLOPs are those that torch counts in a forward. The same is asked of random nets, where
a plan that does not hold is a false accept. Seconds are CPU seconds on one thread.
"""

import logging
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "agent"))

import zoo
from hypothesis import HealthCheck, Phase, given, seed, settings
from part import main
from zoo import levels, oracle
from zoo.huggingface import causal, llama
from zoo.random_nets import built, specs, trains
from zoo.vision import big_resnet, images

from greend_agent.plan import Call, make_plan

QUICK = {"residual MLP", "GPT, separate qkv", "ResNet, basic", "VGG, flatten", "BERT", "Llama, GQA"}
NETS, NETS_QUICK = 500, 40


@dataclass
class Row:
    """What came of one family."""

    family: str
    dials: Counter
    rejected: Counter
    flops: float
    plan_s: float
    levels: int
    broken: list

    @property
    def converted(self):
        return self.levels > 1 and not self.broken

    def __str__(self):
        dials = ", ".join(f"{n} {knob}" for knob, n in sorted(self.dials.items())) or "-"
        why = "; ".join(f"{n}x {reason}" for reason, n in self.rejected.most_common(2))
        verdict = "BROKEN " + self.broken[0][:60] if self.broken else why[:110]
        return f"{self.family:24} {dials:28} {self.flops:5.3f} {self.plan_s:6.2f}  {verdict}"


def planned(model, inputs, **options):
    began = time.process_time()
    plan = make_plan(model, Call.of(*inputs), trained=list(model.parameters()), **options)
    return plan, time.process_time() - began


def row(family):
    model = family.model()
    plan, plan_s = planned(model, family.inputs(0), levels=4)
    quarter = levels.quarter(plan.dials)
    flops = levels.flops_at(model, plan.dials, quarter, family.inputs(0)) if plan.dials else 1.0
    inputs = [family.inputs(1), family.inputs(2)]
    broken = [
        wrong
        for counts in levels.levels_below(plan)
        for trained in (False, True)
        for wrong in oracle.broken_promises(
            model, plan.dials, counts, inputs, trained=trained, double=trained and family.double
        )
    ]
    broken += levels.traces_of_levels(model, plan, family.inputs(3))
    broken += levels.moved_though_inactive(model, plan, family.inputs(0))
    rejected = Counter(reason[:52] for _, reason in plan.rejected)
    return Row(
        family.name, Counter(d.knob for d in plan.dials), rejected, flops, plan_s, len(plan.table), broken
    )


def least_flops(model, inputs):
    """Return the FLOPs of the lowest level of widths, kernels and depth together, and what is broken."""
    knobs = {"channels", "ffn", "kernel", "depth"}
    plan, _ = planned(model, inputs(0), levels=[0.0, 1.0], knobs=knobs)
    print(
        f"ResNet, 5x5 and 7x7, all of {', '.join(sorted(knobs))}: {dict(Counter(d.knob for d in plan.dials))}"
    )
    if not plan.dials:
        return 1.0, []
    least = plan.table.counts[0]
    broken = oracle.broken_promises(model, plan.dials, least, [inputs(1)], trained=True, double=True)
    broken += levels.traces_of_levels(model, plan, inputs(3))
    broken += levels.moved_though_inactive(model, plan, inputs(0))
    return levels.flops_at(model, plan.dials, least, inputs(0)), broken


def quarter_flops(model, inputs):
    plan, _ = planned(model, inputs(0), levels=4)
    return levels.flops_at(model, plan.dials, levels.quarter(plan.dials), inputs(0)) if plan.dials else 1.0


def false_accepts(nets):
    """Return how many of so many random nets were narrowed wrongly, and how many dials were accepted."""
    found, accepted = [], 0

    @seed(0)
    @settings(
        max_examples=nets,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(specs())
    def one(spec):
        nonlocal accepted
        model = built(spec)
        if not trains(model, spec.inputs(0)):
            return
        plan, _ = planned(model, spec.inputs(0), levels=4)
        accepted += len(plan.dials)
        inputs = [spec.inputs(1, batch=4, scale=3.0), spec.inputs(2, batch=2)]
        for counts in levels.levels_below(plan):
            for trained in (False, True):
                if wrong := oracle.broken_promises(
                    model, plan.dials, counts, inputs, double=True, trained=trained
                ):
                    found.append(spec)
                    print(f"FALSE ACCEPT {spec}: {wrong[0]}")
                    return

    one()
    return len(found), accepted


def measure(quick):
    """Print the table; return the figures."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    families = [f for f in zoo.FAMILIES if not quick or f.name in QUICK]
    planned(families[0].model(), families[0].inputs(0), levels=4)  # imports of torch that come late
    print(f"{'family':24} {'dials':28} FLOPs   plan  rejected")
    print(f"{'':24} {'':28} at .25      s")
    rows = []
    for family in families:
        rows.append(row(family))
        print(rows[-1], flush=True)
    nets = NETS_QUICK if quick else NETS
    wrong, accepted = false_accepts(nets)
    print(f"random nets {nets}, dials accepted {accepted}, false accepts {wrong}")
    figures = {
        "families": sum(r.converted for r in rows),
        "plan_s_worst": round(max(r.plan_s for r in rows), 2),
        "false_accepts": wrong,
    }
    if zoo.huggingface.FAMILIES:
        figures["llama_flops"] = round(max(quarter_flops(llama(kv)(), causal) for kv in (8, 4)), 3)
    torch.manual_seed(0)
    share, broken = least_flops(big_resnet().train(), images)
    for wrong in broken:
        print(f"BROKEN {wrong}")
    figures["resnet_flops"] = round(share, 3) if not broken else 1.0
    torch.set_num_threads(threads)
    return figures


if __name__ == "__main__":
    main(measure, __doc__)
