"""Two ranks with `fully_shard`: a low step is that of one process, and what is sliced off does not move."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard

import greend_agent
from greend_agent.engines import engine_for

from .nets import HIDDEN, OPTIMIZERS, Block, batches, net, step
from .pair import shared

SEQUENCE = [3, 0, 0, 1, 3, 2, 0, 3, 3, 0, 1, 1, 3, 3]


@pytest.fixture(scope="module")
def ranks(pytestconfig, tmp_path_factory):
    return shared(pytestconfig, tmp_path_factory)


class Job:
    """A sharded model on one rank of several, and its agent."""

    def __init__(self, rank, model, kind="adamw", attach=True, shard=None, **options) -> None:
        self.rank, self.model, self.levels = rank, model, []
        mesh = init_device_mesh("cpu", (2,))
        for block in model.modules():
            if isinstance(block, Block):
                fully_shard(block, mesh=mesh, **(shard or {}))
        fully_shard(model, mesh=mesh, **(shard or {}))
        self.optimizer = OPTIMIZERS[kind](model.parameters())
        self.agent = greend_agent.attach(model, self.optimizer, **options) if attach else None

    def steps(self, sequence) -> Job:
        for x, level in zip(batches(len(sequence), 10 + self.rank), sequence, strict=True):
            if self.rank == 0 and self.agent is not None:
                self.agent.request(level)
            step(self.model, self.optimizer, x)
            self.levels.append(self.agent.level if self.agent is not None else 3)
        return self

    def weights(self) -> list[torch.Tensor]:
        return [whole(p) for p in self.model.parameters()]

    def moments(self, name: str) -> list[torch.Tensor]:
        return [whole(self.optimizer.state[p][name]) for p in self.model.parameters()]


def whole(tensor) -> torch.Tensor:
    return tensor.full_tensor().detach().clone()


def lists(tensors) -> list:
    return [t.tolist() for t in tensors]


def gap(one, other) -> float:
    return max(float((torch.tensor(a) - b.detach()).abs().max()) for a, b in zip(one, other, strict=True))


def union(levels, kind, hidden=HIDDEN, **options):
    """Return the model and the optimizer of one process on the batches of both ranks, at the same levels."""
    model = net(hidden)
    optimizer = OPTIMIZERS[kind](model.parameters())
    agent = greend_agent.attach(model, optimizer, **options)
    for x, y, level in zip(*(batches(len(levels), 10 + r) for r in (0, 1)), levels, strict=True):
        agent.request(level)
        step(model, optimizer, torch.cat([x, y]))
    return model, optimizer


def run_sequence(rank, kind, hidden):
    job = Job(rank, net(hidden), kind).steps(SEQUENCE)
    moments = lists(job.moments("exp_avg_sq")) if kind != "sgd" else []
    return job.levels, lists(job.weights()), moments, job.agent.report()


@pytest.mark.parametrize(
    ("kind", "hidden"), [("sgd", HIDDEN), ("adamw", HIDDEN), ("adamw-fused", HIDDEN), ("adamw", 33)]
)
def test_two_ranks_are_one_process_on_both_batches(ranks, kind, hidden):
    (levels, weights, moments, report), other = ranks(run_sequence, kind, hidden)

    assert levels == other[0]
    assert levels[2:] == SEQUENCE[1:-1], report
    model, optimizer = union(levels, kind, hidden)
    assert gap(weights, model.parameters()) <= 1e-4
    if moments:
        optimizer.state_dict()  # brings them up to date for the top
        expected = [optimizer.state[p]["exp_avg_sq"] for p in model.parameters()]
        assert gap(moments, expected) <= 1e-6


def run_inactive(rank):
    job = Job(rank, net())
    job.steps([0, 0])
    up, down = job.model[0].up.weight, job.model[0].down.weight
    before = [
        whole(t)
        for p in (up, down)
        for t in (p, *(job.optimizer.state[p][n] for n in ("exp_avg", "exp_avg_sq")))
    ]
    job.steps([0, 0, 0])
    after = [
        whole(t)
        for p in (up, down)
        for t in (p, *(job.optimizer.state[p][n] for n in ("exp_avg", "exp_avg_sq")))
    ]
    moved = [(a != b) for a, b in zip(before, after, strict=True)]
    rows, columns = moved[:3], moved[3:]
    return job.levels, [int(m.any(1).sum()) for m in rows], [int(m.any(0).sum()) for m in columns]


def test_weights_and_moments_outside_do_not_move_at_all(ranks):
    levels, rows, columns = ranks(run_inactive)[0]

    assert levels == [3, 3, 0, 0, 0]
    assert rows == columns == [16] * 3  # of 64, those of level 0


def run_never_lowered(rank, attach):
    job = Job(rank, net(drop=0.3), attach=attach)
    torch.manual_seed(rank)
    job.steps([3] * 8)
    return lists(job.weights()), len(job.agent.costs) if attach else 4


def test_a_run_that_is_never_lowered_is_bit_for_bit_that_of_fsdp(ranks):
    ours, theirs = ranks(run_never_lowered, True), ranks(run_never_lowered, False)

    assert ours == theirs
    assert ours[0][1] == 4


def run_depth(rank):
    job = Job(rank, net(depth=6), knobs=["depth"], levels=[0.6, 1.0])
    sequence = [1, 0, 0, 0, 1, 1, 0, 1]
    job.steps(sequence)
    return job.levels, lists(job.weights()), job.agent.report()


def test_blocks_are_skipped_as_in_one_process(ranks):
    levels, weights, report = ranks(run_depth)[0]

    assert levels == [1, 1, 0, 0, 0, 1, 1, 0], report
    model = net(depth=6)
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = greend_agent.attach(model, optimizer, knobs=["depth"], levels=[0.6, 1.0])
    for number, (x, y) in enumerate(zip(batches(8, 10), batches(8, 11), strict=True)):
        agent.request(levels[number])
        step(model, optimizer, torch.cat([x, y]))
    assert gap(weights, model.parameters()) <= 1e-4


def run_detached(rank):
    job = Job(rank, net())
    job.steps([0, 0, 0])
    job.agent.detach()
    job.agent = None
    job.steps([3])
    forwards = [m for m in job.model.modules() if "forward" in vars(m)]
    return len(forwards), len(job.optimizer._optimizer_step_pre_hooks), type(job.model[0].up.weight).__name__


def test_detached_nothing_is_sliced_and_nothing_is_hooked(ranks):
    assert ranks(run_detached)[0] == (0, 0, "DTensor")


def run_closure(rank):
    job = Job(rank, net(), "sgd")
    job.steps([0, 0, 0])
    for x in batches(3, rank):

        def closure(x=x):
            job.optimizer.zero_grad()
            loss = job.model(x).square().mean()
            loss.backward()
            return loss

        job.optimizer.step(closure)
        job.levels.append(job.agent.level)
    return job.levels


def test_with_closures_the_model_goes_back_to_the_top_as_their_steps_begin_too_early(ranks):
    one, other = ranks(run_closure)

    assert one == other
    assert one[:3] == [3, 3, 0]
    assert one[-1] == 3


def run_half_precision(rank):
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    job = Job(rank, net(), shard={"mp_policy": policy}).steps(SEQUENCE)
    return job.levels, all(bool(w.isfinite().all()) for w in job.weights())


def test_slices_are_of_what_fsdp_has_cast(ranks):
    levels, finite = ranks(run_half_precision)[0]

    assert levels[2:] == SEQUENCE[1:-1]
    assert finite


class Others(nn.Module):
    """What is narrowed elsewhere, and here is not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.norm, self.down = nn.Linear(16, 64), nn.BatchNorm1d(64), nn.Linear(64, 16)
        self.blocks = net()

    def forward(self, x):
        return self.blocks(x + self.down(torch.relu(self.norm(self.up(x)))))


def run_others(rank):
    job = Job(rank, Others()).steps([0, 0, 0])
    return job.levels, job.agent.report()


def test_only_linear_layers_are_narrowed_and_the_report_says_so(ranks):
    levels, report = ranks(run_others)[0]

    assert levels == [3, 3, 0]
    assert any("0.up -> blocks.0.down" in line for line in report if line.startswith("proven"))
    assert any("up -> down" in line and "NotLinear" in line for line in report if line.startswith("rejected"))


def run_refusals(rank):
    one = FullyShardedDataParallel(net(), device_id=torch.device("cpu"))
    two = net()
    fully_shard(two, mesh=init_device_mesh("cpu", (2,)))
    part = net()
    dist.barrier()
    return [engine_for(m, OPTIMIZERS["sgd"](m.parameters())) for m in (one, part)], type(
        engine_for(two, OPTIMIZERS["sgd"](two.parameters()))
    ).__name__


def test_flat_shards_are_refused(ranks):
    (flat, alone), sharded = ranks(run_refusals)[0]

    assert "FullyShardedDataParallel: its parameters are flat shards" in flat
    assert "several processes" in alone
    assert sharded == "FSDP2"
