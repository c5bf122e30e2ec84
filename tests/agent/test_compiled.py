"""Under torch.compile: one graph per level, none that knows of greend, and no surprise in the user's loop."""

from __future__ import annotations

import copy
import inspect
import pickle
import random

import pytest
import torch
import torch._dynamo
from torch import nn

import greend_agent
from greend_agent.compiling import original
from greend_agent.engines.doorway import Doorway

from .graphs import Graphs
from .nets import OPTIMIZERS, Block, batches, net, step, train

pytestmark = pytest.mark.filterwarnings(
    "ignore:The .grad attribute:UserWarning", "ignore::DeprecationWarning:torch.*"
)
"""Tracing makes torch warn of torch, also without greend."""

FOR_EVER = 10**9


class Net(nn.Module):
    """A class of its own: torch does not compile its own containers in place."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(net(depth=depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=8):
        yield
    torch._dynamo.reset()


@pytest.fixture
def graphs() -> Graphs:
    return Graphs()


def wrapper(model, backend):
    outer = torch.compile(model, backend=backend, fullgraph=True)
    return outer, outer


def inside_of_a_wrapper(model, backend):
    return model, torch.compile(model, backend=backend, fullgraph=True)


def in_place(model, backend):
    model.compile(backend=backend, fullgraph=True)
    return model, model


def in_parts(model, backend):
    model.layers[0].compile(backend=backend, fullgraph=True)
    model.layers[1] = torch.compile(model.layers[1], backend=backend, fullgraph=True)
    return model, model


WAYS = [wrapper, inside_of_a_wrapper, in_place, in_parts]


def attached(way, backend, **options):
    """What is called, its optimizer, and the agent, which has planned."""
    attach_to, called = way(Net(), backend)
    optimizer = OPTIMIZERS["adamw"](called.parameters())
    agent = greend_agent.attach(attach_to, optimizer, **{"steps": FOR_EVER, **options})
    train(called, optimizer, batches(3))
    assert len(agent.costs) == 4, agent.report()
    return called, optimizer, agent


@pytest.mark.parametrize("way", WAYS)
def test_each_level_has_one_static_graph_and_switching_compiles_nothing(way, graphs):
    called, optimizer, agent = attached(way, graphs)
    at_the_top = graphs.made
    for level in (0, 1, 2, 3):
        agent.request(level)
        step(called, optimizer, batches(1)[0])
        assert agent.level == level
    assert (graphs.made, graphs.dynamic) == (4 * at_the_top, 0)

    choose = random.Random(0)
    for x in batches(24):
        agent.request(choose.randrange(4))
        step(called, optimizer, x)

    assert graphs.made == 4 * at_the_top


@pytest.mark.parametrize("way", WAYS)
def test_never_lowered_a_compiled_run_compiles_and_computes_what_it_does_without_greend(way, graphs):
    _, plain = way(Net(), graphs)
    train(plain, OPTIMIZERS["adamw"](plain.parameters()), batches(6))
    without = graphs.made
    torch._dynamo.reset()
    called, optimizer, _ = attached(way, graphs)
    train(called, optimizer, batches(6)[3:])

    assert graphs.made == 2 * without
    for a, b in zip(called.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("way", WAYS)
def test_a_step_at_level_0_is_the_eager_one_and_the_model_is_full_at_rest(way):
    called, optimizer, agent = attached(way, "aot_eager")
    twin = Net()
    second = OPTIMIZERS["adamw"](twin.parameters())
    other = greend_agent.attach(twin, second)
    train(twin, second, batches(3))
    for one in (agent, other):
        one.request(0)
    train(called, optimizer, batches(5))
    train(twin, second, batches(5))

    assert agent.level == other.level == 0
    for a, b in zip(called.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_detach_gives_the_compiled_model_back(way, graphs):
    model = Net()
    attach_to, called = way(model, graphs)
    before = vars(called).get("forward"), model._compiled_call_impl
    optimizer = OPTIMIZERS["adamw"](called.parameters())
    agent = greend_agent.attach(attach_to, optimizer, steps=FOR_EVER)
    train(called, optimizer, batches(3))
    agent.request(0)
    called(batches(1)[0]).sum().backward()
    assert agent.level == 0
    for known in (model, called):
        with greend_agent.full(known):
            assert [p.shape for p in called.parameters()] == [p.shape for p in Net().parameters()]
    agent.detach()

    assert (vars(called).get("forward"), model._compiled_call_impl) == before
    assert [p.shape for p in called.parameters()] == [p.shape for p in Net().parameters()]
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in called.modules())
    train(called, OPTIMIZERS["adamw"](called.parameters()), batches(2))


@pytest.mark.parametrize("way", WAYS)
def test_other_batch_sizes_and_evaluation_stay_within_the_limit_at_every_level(way, graphs):
    called, optimizer, agent = attached(way, graphs)
    for samples in (8, 5, 6):
        for level in (0, 1, 2, 3):
            agent.request(level)
            step(called, optimizer, batches(1)[0][:samples])
    called.eval()
    called(batches(1)[0])  # with fullgraph=True an exceeded limit would raise
    with torch.no_grad():
        called(batches(1)[0])

    assert agent.level == 3
    assert graphs.made > 8
    assert any("recompile_limit is 32 instead of 8" in line for line in agent.report())


class Residual(nn.Module):
    """A residual block of convolutions, with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm = nn.Conv2d(8, 16, 5, padding=2), nn.BatchNorm2d(16)
        self.down = nn.Conv2d(16, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.norm(self.up(x))))


def test_other_knobs_and_statistics_per_level_make_one_graph_per_level_too(graphs):
    torch.manual_seed(0)
    called = torch.compile(nn.Sequential(*(Residual() for _ in range(2))), backend=graphs, fullgraph=True)
    optimizer = OPTIMIZERS["adamw"](called.parameters())
    agent = greend_agent.attach(
        called, optimizer, levels=3, knobs=["channels", "kernel", "depth"], steps=FOR_EVER
    )
    xs = [x.reshape(2, 8, 2, 4).repeat(1, 1, 4, 2) for x in batches(12)]
    train(called, optimizer, xs[:3])
    for level in (0, 1, 2, 0, 2, 1, 0, 1, 2):
        agent.request(level)
        step(called, optimizer, xs[level])

    assert len(agent.costs) == graphs.made == 3
    assert {line.split(": ")[1] for line in agent.report() if "proven" in line} >= {"channels", "kernel"}


def test_warming_compiles_all_levels_at_once_and_leaves_no_trace(graphs):
    model = net(drop=0.1)
    twin, called = copy.deepcopy(model), torch.compile(model, backend=graphs)
    optimizer = OPTIMIZERS["adamw"](called.parameters())
    agent = greend_agent.attach(called, optimizer)
    agent.warm()
    torch.manual_seed(3)
    train(called, optimizer, batches(2))
    made = graphs.made
    for level in (0, 1, 2, 3):
        agent.request(level)
        called(batches(1)[0])
        optimizer.zero_grad()
        agent.detach() if level == 3 else optimizer.step()
    second = OPTIMIZERS["adamw"](twin.parameters())
    torch.manual_seed(3)
    train(twin, second, batches(2))

    assert made == graphs.made == 4
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(optimizer.state.values(), second.state.values(), strict=True):
        assert torch.equal(a["exp_avg"], b["exp_avg"])


def test_a_level_that_would_not_pay_is_not_compiled_and_the_next_one_above_is_used(graphs):
    called, optimizer, agent = attached(wrapper, graphs, steps=10)
    agent.request(0)
    train(called, optimizer, batches(2))

    assert (agent.level, agent.want, graphs.made) == (3, 0, 1)  # compiling the top has been measured


def test_a_level_that_does_not_compile_costs_the_job_nothing_but_its_levels(graphs):
    called, optimizer, agent = attached(in_place, graphs)
    plain = Net()
    train(plain, OPTIMIZERS["adamw"](plain.parameters()), batches(3))
    agent.request(0)
    graphs.fail = True
    x = batches(1)[0]

    assert torch.equal(called(x), plain(x))
    optimizer.step()
    step(called, optimizer, x)
    assert agent.costs == [1.0]
    assert "could not be compiled: BackendCompilerFailed" in agent.report()[0]


def test_a_model_that_is_compiled_in_mid_run_stays_full_and_compiles_nothing_of_greend(graphs):
    model = Net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = greend_agent.attach(model, optimizer)
    train(model, optimizer, batches(2))
    agent.request(0)
    train(model, optimizer, batches(2))
    assert agent.level == 0
    model.compile(backend=graphs, fullgraph=True)
    train(model, optimizer, batches(3))
    model.eval()
    model(batches(1)[0])

    assert graphs.made == 2
    assert [p.shape for p in model.parameters()] == [p.shape for p in Net().parameters()]


@pytest.mark.parametrize("way", [inside_of_a_wrapper, in_place, in_parts])
def test_a_copy_and_a_pickle_made_in_mid_step_are_ordinary_models(way):
    called, optimizer, agent = attached(way, "eager")
    agent.request(0)
    model = original(called)
    called(batches(1)[0]).sum().backward()
    with greend_agent.full(model):
        copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    optimizer.step()

    for one in copies:
        assert not isinstance(one._compiled_call_impl, Doorway)
        second = OPTIMIZERS["adamw"](one.parameters())
        train(one, second, batches(2))


def test_an_error_in_a_compiled_forward_is_the_users_own_and_leaves_a_full_model(graphs):
    called, optimizer, agent = attached(wrapper, graphs)
    agent.request(0)
    with pytest.raises(RuntimeError):
        called(batches(1)[0][:, 1:])

    assert [p.shape for p in called.parameters()] == [p.shape for p in Net().parameters()]
    train(called, optimizer, batches(2))
    assert agent.level == 0


def test_a_model_that_is_compiled_after_attaching_is_found(graphs):
    model = Net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = greend_agent.attach(model, optimizer, steps=FOR_EVER)
    called = torch.compile(model, backend=graphs, fullgraph=True)
    train(called, optimizer, batches(4))
    agent.request(0)
    train(called, optimizer, batches(1))

    assert agent.level == 0
    assert not model._forward_pre_hooks
    assert greend_agent.attach(called, optimizer) is agent


def test_a_model_that_is_compiled_for_evaluation_only_is_narrowed_where_it_is_trained(graphs):
    model = Net()
    evaluated = torch.compile(model, backend=graphs)
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = greend_agent.attach(evaluated, optimizer, steps=FOR_EVER)
    train(model, optimizer, batches(4))
    agent.request(0)
    train(model, optimizer, batches(1))
    assert agent.level == 0


def test_a_function_that_hides_the_forward_leaves_it_full_and_the_report_says_why(graphs):
    model = Net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = greend_agent.attach(model, optimizer)
    agent.request(0)

    @torch.compile(backend=graphs, fullgraph=True)
    def loss(x):
        return model(x).square().mean()

    for x in batches(6):
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()
    assert (agent.step_count, agent.costs, graphs.made) == (6, [1.0], 1)
    assert "compile the model instead" in agent.report()[0]


def test_a_training_step_compiled_as_a_whole_trains_as_without_greend(graphs):
    weights = []
    for follow in (False, True):
        torch._dynamo.reset()
        model = Net()
        optimizer = OPTIMIZERS["adamw"](model.parameters())
        agent = greend_agent.attach(model, optimizer) if follow else None

        @torch.compile(backend=graphs)
        def whole(x, model=model, optimizer=optimizer):
            step(model, optimizer, x)

        for x in batches(4):
            whole(x)
        weights.append(list(model.parameters()))
        if agent is not None:
            assert agent.level == 0 and agent.costs == [1.0]

    for a, b in zip(*weights, strict=True):
        assert torch.equal(a, b)


def test_a_compiled_step_of_another_optimizer_has_nothing_of_greend_in_it(graphs):
    made = []
    for follow in (False, True):
        torch._dynamo.reset()
        followed = attached(in_parts, Graphs()) if follow else None
        other = nn.Linear(16, 4)
        second = OPTIMIZERS["sgd"](other.parameters())
        compiled_step = torch.compile(second.step, backend=graphs)
        for x in batches(3):
            other(x).sum().backward()
            compiled_step()
        made.append(graphs.made)
        assert followed is None or len(followed[2].costs) == 4

    assert made[1] == 2 * made[0]


def test_buffers_and_plain_attributes_do_not_make_a_graph_dynamic(graphs):
    class Config:
        hidden = 64

    class Masked(Block):
        def __init__(self):
            super().__init__()
            self.config = Config()

        def forward(self, x):
            hidden = torch.relu(self.up(self.norm(x)))
            return x + self.down(hidden.unflatten(-1, (-1, 8)).flatten(-2))

    model = nn.Sequential(Masked(), nn.Linear(16, 4))
    called = torch.compile(model, backend=graphs, fullgraph=True)
    optimizer = OPTIMIZERS["adamw"](called.parameters())
    agent = greend_agent.attach(called, optimizer, steps=FOR_EVER)
    train(called, optimizer, batches(3))
    for level in (0, 1, 2, 3, 0, 1, 2, 3):
        agent.request(level)
        train(called, optimizer, batches(1))

    assert (graphs.made, graphs.dynamic) == (4, 0)


@pytest.mark.skipif(
    "recompile_limit" not in inspect.signature(torch.compile).parameters, reason="older torch"
)
def test_a_limit_that_was_given_to_torch_compile_is_not_overridden_but_named(graphs):
    called = torch.compile(Net(), backend=graphs, recompile_limit=3)
    optimizer = OPTIMIZERS["adamw"](called.parameters())
    agent = greend_agent.attach(called, optimizer)
    train(called, optimizer, batches(2))

    assert "given recompile_limit=3" in agent.report()[0]
    assert torch._dynamo.config.recompile_limit == 8


def test_several_processes_and_torch_compile_together_are_refused_with_the_reason(graphs):
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(Net())
        called = torch.compile(parallel, backend=graphs)
        optimizer = OPTIMIZERS["adamw"](called.parameters())
        agent = greend_agent.attach(called, optimizer)
        train(called, optimizer, batches(2))
    finally:
        torch.distributed.destroy_process_group()

    assert "torch.compile with several processes" in agent.report()[0]
    assert agent.step_count == 2
