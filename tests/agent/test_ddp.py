"""Two ranks with DistributedDataParallel: they never differ, and are one process on both their batches."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import greend_agent

from .ddp_job import Job, difference, gap, numbers, union
from .nets import HIDDEN, OPTIMIZERS, WIDTH, batches, net, step
from .pair import shared

SEQUENCE = [3, 0, 0, 1, 3, 2, 0, 3, 3, 0, 1, 1, 3, 3]


@pytest.fixture(scope="module")
def ranks(pytestconfig, tmp_path_factory):
    return shared(pytestconfig, tmp_path_factory)


def run_sequence(rank, kind, sequence):
    return Job(rank, net(), kind).steps(sequence).result()


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_ranks_are_equal_bit_for_bit_and_are_one_process_on_both_batches(ranks, kind):
    one, other = ranks(run_sequence, kind, SEQUENCE)

    assert one[0] == other[0]
    assert one[0][2:] == SEQUENCE[1:-1]  # one step after it was asked for
    assert one[1] == other[1] == 0.0
    assert gap(one[2], union(one[0], kind)) <= 1e-4


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = net(), nn.BatchNorm1d(4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.norm(self.body(x)))


def run_normed(rank, options):
    torch.manual_seed(0)
    model = Normed()
    job = Job(rank, model, **options)
    drawn = random.Random(3)
    job.steps([drawn.randrange(4) for _ in range(20)])
    levels = job.levels
    job.model(batches(1)[0])  # the forward that hands rank 0's statistics round
    return levels, job.difference(), difference(b.float() for b in model.buffers()), job.agent.report()[0]


@pytest.mark.parametrize(
    "options",
    [{}, {"find_unused_parameters": True}, {"static_graph": True}, {"gradient_as_bucket_view": True}],
    ids=["plain", "find_unused", "static_graph", "bucket_view"],
)
def test_ranks_with_batch_norm_are_equal_after_random_levels(ranks, options):
    (levels, weights, buffers, report), other = ranks(run_normed, options)

    assert len(set(levels)) == 4, report
    assert levels == other[0]
    assert (weights, buffers) == (0.0, 0.0)


def run_never_lowered(rank, attach):
    model = net(drop=0.3)
    job = Job(rank, model, attach=attach)
    torch.manual_seed(rank)
    job.steps([3] * 12)
    return numbers(model), len(job.agent.costs) if attach else 4


def test_a_run_that_is_never_lowered_is_bit_for_bit_that_of_ddp(ranks):
    ours, theirs = ranks(run_never_lowered, True), ranks(run_never_lowered, False)

    assert ours == theirs
    assert ours[0][1] == 4


def run_accumulation(rank, clip):
    model = net()
    job = Job(rank, model)
    norms = []
    for first, second in zip(batches(8, 10 + rank), batches(8, 30 + rank), strict=True):
        job.ask(0)
        job.optimizer.zero_grad()
        with job.model.no_sync():
            (job.model(first).square().mean() / 2).backward()
        (job.model(second).square().mean() / 2).backward()
        if clip:
            norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.01)))
        job.optimizer.step()
        job.levels.append(job.agent.level)
    return job.levels, job.difference(), numbers(model), norms, job.model.require_backward_grad_sync


def accumulated_alone(levels, clip):
    model = net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = greend_agent.attach(model, optimizer)
    for *xs, level in zip(*(batches(8, seed) for seed in (10, 11, 30, 31)), levels, strict=True):
        agent.request(level)
        optimizer.zero_grad()
        for pair in (xs[:2], xs[2:]):
            (model(torch.cat(pair)).square().mean() / 2).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
    return numbers(model)


@pytest.mark.parametrize("clip", [False, True])
def test_accumulation_with_no_sync_and_clipping_see_the_mean_of_all_ranks(ranks, clip):
    one, other = ranks(run_accumulation, clip)

    assert one[0] == [3, 3, 0, 0, 0, 0, 0, 0]
    assert one[1] == 0.0
    assert one[3] == other[3]
    assert gap(one[2], accumulated_alone(one[0], clip)) <= 1e-4
    assert one[4] is True


def run_up_again(rank):
    job = Job(rank, net())
    job.steps([0, 0, 0])
    lowered = job.model.reducer
    job.steps([3, 3, 3])
    left = any(p._post_accumulate_grad_hooks for p in job.model.parameters())
    return job.levels, lowered is job.model.reducer, left


def test_back_at_the_top_the_reducer_is_made_anew_and_our_hooks_are_gone(ranks):
    levels, same_reducer, left = ranks(run_up_again)[0]

    assert levels == [3, 3, 0, 0, 3, 3]
    assert not same_reducer
    assert not left


def run_without_the_private_helper(rank):
    job = Job(rank, net())
    job.model._ddp_init_helper = None  # as in a torch where it has another name
    job.steps(SEQUENCE)
    result = job.result()
    job.agent.detach()
    job.agent = None
    job.steps([3, 3])
    return *result, job.difference()


def test_where_no_reducer_can_be_made_gradients_are_averaged_without_it_for_good(ranks):
    levels, weights, values, _, detached = ranks(run_without_the_private_helper)[0]

    assert levels[2:] == SEQUENCE[1:-1]
    assert weights == detached == 0.0
    assert gap(values, union(levels)) <= 1e-4


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = net()

    def forward(self, x):
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=True) if self.training else block(x)
        return x


def run_nested(rank):
    job = Job(rank, Checkpointed())
    levels = [0, 0, 0, 0, 1, 3, 3]
    for x, level in zip(batches(len(levels), 10 + rank), levels, strict=True):
        job.ask(level)
        step(job.model, job.optimizer, x.requires_grad_())
        job.levels.append(job.agent.level)
    return job.result()


def test_backwards_inside_a_backward_are_averaged_each_and_right(ranks):
    levels, weights, values, report = ranks(run_nested)[0]

    assert levels == [3, 3, 0, 0, 0, 1, 3], report
    assert weights == 0.0
    assert gap(values, union(levels)) <= 1e-4


def run_unused(rank):
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.norm = net(), nn.LayerNorm(4)
            self.left, self.right, self.never = (nn.Linear(4, 2) for _ in range(3))

        def forward(self, x, left):
            return (self.left if left else self.right)(self.norm(self.body(x)))

    torch.manual_seed(0)
    model = Branch()
    job = Job(rank, model, find_unused_parameters=True)
    job.ask(0)
    seen = []
    for number, x in enumerate(batches(6, 10 + rank)):
        job.optimizer.zero_grad()
        job.model(x, number < 4 and rank == 0).square().mean().backward()
        seen.append([m.weight.grad is not None for m in (model.left, model.right, model.never)])
        job.optimizer.step()
        job.levels.append(job.agent.level)
    return job.levels, job.difference(), seen


def test_what_one_rank_used_all_step_and_what_none_did_nobody_does(ranks):
    one, other = ranks(run_unused)

    assert one[0] == [3, 3, 0, 0, 0, 0]
    assert one[1] == 0.0
    assert one[2] == other[2] == [[True, True, False]] * 4 + [[False, True, False]] * 2


def run_detached(rank):
    job = Job(rank, net())
    job.steps([0, 0, 0])
    agent, job.agent = job.agent, None
    job.optimizer.zero_grad()
    job.model(batches(1, rank)[0]).square().mean().backward()
    agent.detach()
    assert job.inner[0].up.weight.grad.shape == (HIDDEN, WIDTH)
    job.optimizer.step()
    job.steps([3, 3, 3])
    hooks = [m._forward_pre_hooks or m._forward_hooks for m in job.model.modules()]
    hooks += [p._post_accumulate_grad_hooks for p in job.model.parameters()]
    return job.difference(), any(hooks), job.model.require_backward_grad_sync


def test_detached_in_mid_run_ddp_is_as_it_was(ranks):
    assert ranks(run_detached) == [(0.0, False, True)] * 2


def run_saving(rank):
    job = Job(rank, net())
    job.steps([0, 0])
    job.model(batches(1, rank)[0]).square().mean().backward()
    shapes = [tuple(v.shape) for v in job.model.state_dict().values()]
    narrow = tuple(job.inner[0].up.weight.shape)
    job.optimizer.step()
    return shapes, narrow


def test_what_rank_0_saves_in_mid_step_is_whole(ranks):
    shapes, narrow = ranks(run_saving)[0]

    assert narrow[0] < HIDDEN
    assert shapes == [tuple(v.shape) for v in net().state_dict().values()]
