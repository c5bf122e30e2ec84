"""What ranks agree on, and what they do when one cannot: none differs from the others, and none waits."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import greend_agent
from greend.types import Action
from greend_agent import discover, planning
from greend_agent.agent import agent_of
from greend_agent.engines import engine_for, together
from greend_agent.engines.local import STANDING_S
from greend_agent.signals import Order

from .ddp_job import Job, difference
from .nets import OPTIMIZERS, batches, net, step
from .paced import Loop
from .pair import shared


@pytest.fixture(scope="module")
def ranks(pytestconfig, tmp_path_factory):
    return shared(pytestconfig, tmp_path_factory)


def run_veto(rank):
    job = Job(rank, net())
    job.steps([0, 0, 0])
    if rank == 1:
        job.model._comm_hooks.append(None)  # as `register_comm_hook` does
    job.steps([0, 0, 0])
    job.model._comm_hooks.clear()
    job.steps([0, 0, 0])
    return job.result()


def test_one_rank_that_cannot_change_level_keeps_all_at_the_top_while_it_cannot(ranks):
    one, other = ranks(run_veto)

    assert one[0] == other[0] == [3, 3, 0, 0, 3, 3, 3, 0, 0]
    assert one[1] == 0.0


def run_own_wish(rank):
    job = Job(rank, net())
    for _ in range(3):
        if rank == 1:
            job.agent.request(0)
        job.steps([3])
    return job.levels


def test_what_another_rank_than_the_first_wishes_is_not_heard(ranks):
    assert ranks(run_own_wish) == [[3, 3, 3], [3, 3, 3]]


def run_calm(rank):
    job = Job(rank, net())
    job.steps([3])
    votes, vote = [], job.agent._loop.engine.ranks.vote
    job.agent._loop.engine.ranks.vote = lambda level: (votes.append(level), vote(level))
    job.steps([3] * 29)
    calm, changed = len(votes), len(job.levels)
    job.steps([0] * 12)
    return calm, job.levels[changed:], len(votes) - calm, job.difference()


def test_as_long_as_the_level_stands_few_steps_are_voted_on_and_a_change_is_heard_in_time(ranks):
    one, other = ranks(run_calm)

    assert one == other
    calm, levels, votes, difference_ = one
    assert calm == together.CALM + 4  # of 29 steps
    assert levels == [3] * levels.count(3) + [0] * levels.count(0)
    assert levels.count(3) <= together.SELDOM + 1
    assert votes >= 12 - together.SELDOM  # one in each step again
    assert difference_ == 0.0


def run_differing(rank):
    job = Job(rank, net())
    if rank == 1:
        whole = together.digest
        together.digest = lambda *args: whole(*args)[::-1]
    try:
        job.steps([0, 0, 0])
    finally:
        if rank == 1:
            together.digest = whole
    return job.levels, job.difference(), job.agent.report()[0]


def test_ranks_whose_plans_differ_stay_full_and_say_why(ranks):
    one, other = ranks(run_differing)

    assert one[0] == other[0] == [0, 0, 0]  # the only one that there is
    assert one[1] == 0.0
    assert one[2] == "stays full: rank 1 made another plan"
    assert other[2] == "stays full: rank 0 made another plan"


def run_unplanned(rank):
    job, kept = Job(rank, net()), planning.make_plan
    if rank == 1:
        planning.make_plan = lambda *args, **options: 1 / 0
    try:
        job.steps([0, 0, 0])
    finally:
        planning.make_plan = kept
    return job.difference(), job.agent.report()[0]


def test_a_rank_that_fails_to_plan_keeps_all_full(ranks):
    one, other = ranks(run_unplanned)

    assert one == (0.0, "stays full: rank 1: ZeroDivisionError: division by zero")
    assert other == (0.0, "stays full: ZeroDivisionError: division by zero")


def run_failing(rank):
    job = Job(rank, net())
    job.steps([0, 0, 0])
    if rank == 1:
        job.agent._loop.windows.apply = lambda level: 1 / 0
    job.steps([0, 0, 0, 0])
    return job.result()


def test_when_the_windows_of_one_rank_fail_all_go_on_full_and_equal(ranks):
    one, other = ranks(run_failing)

    assert one[1] == 0.0
    assert one[0][:3] == [3, 3, 0]
    assert one[0][3:] == [3, 3, 0, 0]  # from the very step on in which it failed; then there is one level
    assert one[3].startswith("stays full: RuntimeError: another rank can no longer change level")
    assert other[3] == "stays full: ZeroDivisionError: division by zero"


def run_raising(rank):
    job = Job(rank, net())
    job.steps([0, 0])
    for x in batches(3, 50 + rank):
        job.optimizer.zero_grad()
        if rank == 1:
            with pytest.raises(RuntimeError):
                job.model(torch.randn(8, 5))  # as when memory runs out, and the batch is tried again
        job.model(x).square().mean().backward()
        job.optimizer.step()
        job.levels.append(job.agent.level)
    return job.result()


def test_a_forward_that_raises_on_one_rank_makes_the_step_a_full_one_on_all(ranks):
    one, other = ranks(run_raising)

    assert one[0] == other[0] == [3, 3, 3, 3, 3]
    assert one[1] == 0.0


def run_uneven(rank):
    job = Job(rank, net())
    job.steps([0, 0, 0])
    with job.model.join():
        job.steps([0] * (2 + rank))
    return job.steps([0, 0, 0]).levels


def test_in_join_where_ranks_make_different_numbers_of_steps_all_are_full(ranks):
    one, other = ranks(run_uneven)

    assert one == [3, 3, 0, 3, 3, 3, 3, 3]
    assert other == [3, 3, 0, 3, 3, 3, 3, 3, 3]


def run_discovered(rank):
    job = Job(rank, net(), attach=False)
    job.steps([3])
    discover.watch(job.optimizer)
    job.steps([3, 3])
    job.agent = agent_of(job.model)
    job.levels.clear()
    return job.steps([0, 0, 0]).result()


def test_without_a_line_of_code_the_wrapper_is_found(ranks):
    one, other = ranks(run_discovered)

    assert one[0] == other[0] == [3, 0, 0]
    assert one[1] == 0.0


def run_ranked(rank):
    job = Job(rank, net())
    job.steps([0, 0, 0, 3])
    x = batches(1, 77)[0]
    before, first = job.inner(x).detach(), job.inner[0].up.weight.detach().clone()
    job.agent.rank()
    for group in job.optimizer.param_groups:
        group["lr"] = 0.0
    job.steps([3])
    moved = not torch.equal(first, job.inner[0].up.weight)
    same = float((job.inner(x) - before).detach().abs().max())
    moments = difference(job.optimizer.state[p]["exp_avg"] for p in job.inner.parameters())
    return moved, same, moments, job.difference(), job.agent.report()[-1]


def test_units_are_ranked_alike_on_all_ranks(ranks):
    moved, same, moments, weights, report = ranks(run_ranked)[0]

    assert moved, report
    assert same <= 1e-5
    assert moments == weights == 0.0


def run_ordered(rank):
    job = Job(rank, net())
    job.steps([3, 3, 3])
    if rank == 0:
        job.agent._signals.order = Order(level=0, from_step=6, seq=9)
    for x in batches(6, 40 + rank):
        step(job.model, job.optimizer, x)
        job.levels.append(job.agent.level)
    return job.levels, job.difference(), job.agent._signals.applied.seq


def test_an_order_from_a_step_on_changes_all_ranks_at_one_step_and_not_before(ranks):
    one, other = ranks(run_ordered)

    assert one[0] == other[0] == [3, 3, 3, 3, 3, 3, 3, 0, 0]  # agreed on in step 7, in force in step 8
    assert one[1] == 0.0
    assert (one[2], other[2]) == (9, 0)


def run_stopping(rank):
    job = Job(rank, net())
    job.steps([3, 3, 3])
    made = 0
    for x in batches(12, 40 + rank):
        # Rank 1 is never told, and rank 0 in the middle of things.
        if made == 4 and rank == 0:
            job.agent._signals.order = Order(level=0, action=Action.STOP, seq=9)
        step(job.model, job.optimizer, x)
        made += 1
        if job.agent.should_stop:
            break
    return made, job.difference(), job.agent._signals.applied.refused


def test_all_ranks_are_asked_to_stop_after_the_same_step(ranks):
    one, other = ranks(run_stopping)

    assert one == other == (6, 0.0, "")


def run_pausing(rank):
    job = Job(rank, net())
    job.steps([3, 3, 3])
    loop = Loop.of(job.agent)
    job.agent._loop.orders.pace._patience_s = lambda: job.agent._loop.engine.patience_s
    if rank == 0:
        job.agent._signals.order = Order(action=Action.PAUSE, seq=9)
    job.agent._loop.engine.ranks._timeout = timedelta(seconds=40)
    for x in batches(3, 40 + rank):
        step(job.model, job.optimizer, x)
    return sum(loop.waits), job.difference()


def test_a_rank_that_pauses_makes_a_step_before_the_others_give_it_up(ranks):
    (waited_s, _), (other_s, difference_) = ranks(run_pausing)

    assert waited_s == pytest.approx(3 * 20.0, rel=0.01)
    assert (other_s, difference_) == (0.0, 0.0)


def run_apart(rank):
    """Train on several processes with a model that is not wrapped, as who averages gradients by hand does."""
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    agent = greend_agent.attach(model, optimizer)
    agent._signals.order = Order(level=0, action=Action.STOP, seq=9)
    for x in batches(2):
        step(model, optimizer, x)
    return agent.should_stop, agent._loop.engine.patience_s, agent._signals.applied.refused


def test_processes_that_cannot_agree_are_never_asked_to_stop_one_by_one(ranks):
    for stops, patience_s, refused in ranks(run_apart):
        assert (stops, patience_s) == (False, STANDING_S)
        assert "cannot agree on a step" in refused


def run_alone(rank):
    """Attach on one rank only, with little patience."""
    ddp_model = DistributedDataParallel(net())
    optimizer = OPTIMIZERS["sgd"](ddp_model.parameters())
    from greend_agent.engines import ranks as talk

    talk.PATIENCE_S, patience = 0.3, talk.PATIENCE_S
    agent = greend_agent.attach(ddp_model, optimizer) if rank == 0 else None
    for x in batches(2, rank):
        step(ddp_model, optimizer, x)
    talk.PATIENCE_S = patience
    dist.new_group([0, 1])
    if rank == 1:
        next(talk._numbers)  # so that the next test's agents are numbered alike
    return agent.report()[0] if agent is not None else ""


def test_an_agent_on_one_rank_alone_waits_once_and_leaves_the_job_as_it_is(ranks):
    assert "attach on every one" in ranks(run_alone)[0]


def run_collective_inside(rank):
    class Talks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = net()

        def forward(self, x):
            out = self.body(x)
            dist.all_reduce(out.detach().clone())
            return out

    return Job(rank, Talks()).steps([0, 0, 0]).result()


def test_a_model_that_talks_to_other_ranks_in_its_forward_is_not_planned(ranks):
    one, _ = ranks(run_collective_inside)

    assert one[1] == 0.0
    assert "talks to other processes" in one[3]


def run_refusals(rank):
    from torch.distributed.optim import ZeroRedundancyOptimizer  # importing it warns

    inside = DistributedDataParallel(net())
    hooked = DistributedDataParallel(net())
    hooked.register_comm_hook(None, lambda state, bucket: bucket.buffer())
    optimizer = OPTIMIZERS["sgd"](inside.parameters())
    sparse = DistributedDataParallel(nn.Sequential(nn.Embedding(4, 4, sparse=True)))
    return [
        *(engine_for(m, optimizer) for m in (inside.module, nn.Sequential(inside), nn.DataParallel(net()))),
        *(engine_for(m, optimizer) for m in (hooked, sparse)),
        engine_for(inside, ZeroRedundancyOptimizer(inside.parameters(), torch.optim.SGD, lr=0.1)),
    ]


def test_what_cannot_be_lowered_says_why_and_what_to_do(ranks):
    inside, outside, replicas, hooked, sparse, spread = ranks(run_refusals)[0]

    assert "attach the DistributedDataParallel wrapper itself" in inside
    assert inside == outside
    assert "communication hook" in hooked
    assert "sparse gradients" in sparse
    assert "replicas are made anew" in replicas
    assert "ZeroRedundancyOptimizer" in spread
