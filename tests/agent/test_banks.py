"""Batch norm at each level has running statistics of its own, and the top's are the user's."""

from __future__ import annotations

import copy
import gc
import io
import logging
import random

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import greend_agent
from greend_agent.norm.banked import BankedWindows
from greend_agent.windows.ladder import Ladder, Window

from .graphs import Graphs
from .pair import shared

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
TOP = 3


class Residual(nn.Module):
    """A block whose inner batch norm can narrow; the outer one is on the residual stream."""

    def __init__(self, momentum: float | None, inner: int) -> None:
        super().__init__()
        self.up, self.inner = nn.Conv2d(4, inner, 1), nn.BatchNorm2d(inner, momentum=momentum)
        self.down, self.outer = nn.Conv2d(inner, 4, 1), nn.BatchNorm2d(4, momentum=momentum)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.outer(self.down(torch.relu(self.inner(self.up(x)))))


def convnet(momentum: float | None = 0.1, seed: int = 0, inner: int = 16) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 4, 3), Residual(momentum, inner), nn.Flatten(), nn.Linear(4 * 36, 3))


def images(number: int = 8, seed: int = 1) -> torch.Tensor:
    return torch.randn(number, 2, 8, 8, generator=torch.Generator().manual_seed(seed))


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, *batches: torch.Tensor) -> None:
    optimizer.zero_grad()
    for x in batches or (images(),):
        model(x).square().mean().backward()
    optimizer.step()


def attached(**kwargs) -> tuple[nn.Sequential, torch.optim.Optimizer, greend_agent.Agent]:
    model = convnet(**kwargs)
    optimizer = optimizer_of(model)
    agent = greend_agent.attach(model, optimizer, levels=4)
    step(model, optimizer)
    assert len(agent.costs) == 4, agent.report()
    return model, optimizer, agent


def lowered(**kwargs) -> tuple[nn.Sequential, torch.optim.Optimizer, greend_agent.Agent]:
    model, optimizer, agent = attached(**kwargs)
    agent.request(0)
    return model, optimizer, agent


def buffers(model: nn.Module) -> list[torch.Tensor]:
    return [buffer.clone() for buffer in model.buffers()]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def at(agent: greend_agent.Agent, model: nn.Module, level: int) -> list[torch.Tensor]:
    with agent.at(level):
        return buffers(model)


# --- what the user sees ---


def test_a_run_that_is_never_lowered_has_the_buffers_of_a_run_without_greend_bit_for_bit():
    def run(with_greend: bool) -> list[torch.Tensor]:
        model = convnet()
        optimizer = optimizer_of(model)
        agent = greend_agent.attach(model, optimizer) if with_greend else None
        for seed in range(30):
            step(model, optimizer, images(seed=seed))
        assert agent is None or len(agent.costs) == 4
        return [*buffers(model), *(p.detach() for p in model.parameters())]

    assert same(run(True), run(False))


def test_steps_at_a_lower_level_leave_the_users_own_statistics_as_they_were():
    model, optimizer, agent = lowered()
    before, kept = buffers(model), [*model.buffers()]

    for seed in range(20):
        step(model, optimizer, images(seed=seed))

    assert agent.level == 0
    assert same(buffers(model), before)
    assert all(a is b for a, b in zip(model.buffers(), kept, strict=True))


def test_in_a_step_the_same_buffers_show_statistics_of_the_levels_width_in_all_layers():
    model, optimizer, _ = lowered()
    kept, before = [*model.buffers()], buffers(model)
    loss = model(images()).square().mean()

    assert all(a is b for a, b in zip(model.buffers(), kept, strict=True))
    assert [b.shape for b in model[1].inner.buffers()] == [(4,), (4,), ()]
    assert not torch.equal(model[1].outer.running_mean, before[3])  # not cut, but given something else
    loss.backward()
    optimizer.step()
    assert same(buffers(model), before)


def test_one_set_of_statistics_for_all_levels_would_spoil_the_top():
    model, optimizer, agent = attached()
    for seed in range(40):
        step(model, optimizer, images(seed=seed))
    one_for_all = copy.deepcopy(model[1].outer)

    def also(module: nn.Module, args: tuple[torch.Tensor]) -> None:
        one_for_all(args[0].detach())

    model[1].outer.register_forward_pre_hook(also)
    optimizer.param_groups[0]["lr"] = 0.0  # the weights stay: only statistics change
    with torch.no_grad():
        right = model.eval()(images())
    model.train()
    agent.request(0)
    for seed in range(40):
        step(model, optimizer, images(seed=seed))
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(images()), right)
        model[1].outer.load_state_dict(one_for_all.state_dict())
        assert float((model(images()) - right).abs().max()) > 0.1 * float(right.abs().max())


def test_a_state_dict_saved_in_mid_step_has_the_keys_and_values_of_one_at_rest():
    model, optimizer, _ = lowered()
    for seed in range(3):
        step(model, optimizer, images(seed=seed))
    rest = copy.deepcopy(model.state_dict())
    model(images())
    inside = model.state_dict()

    assert list(inside) == list(rest) == list(convnet().state_dict())
    assert all(torch.equal(inside[name], value) for name, value in rest.items())
    assert torch.equal(model[1].inner.state_dict()["running_var"], rest["1.inner.running_var"])


@pytest.mark.parametrize("load", ["the model", "one layer"])
def test_what_is_loaded_in_mid_step_is_there_and_the_step_goes_on(load):
    model, optimizer, agent = lowered()
    step(model, optimizer)
    other = convnet(seed=5)
    other(images(seed=9))
    model(images()).sum().backward()
    if load == "the model":
        model.load_state_dict(other.state_dict())
    else:
        model[1].outer.load_state_dict(other[1].outer.state_dict())

    assert same([*model[1].outer.buffers()], [*other[1].outer.buffers()])
    model(images()).sum().backward()
    optimizer.step()
    step(model, optimizer)
    assert agent.level == 0
    assert agent.report()[0].startswith("proven")


def test_banks_begin_anew_when_other_weights_are_loaded():
    model, optimizer, agent = lowered()
    step(model, optimizer)
    other = convnet(seed=5)
    other(images(seed=9))
    model.load_state_dict(other.state_dict())

    mean, var, count, *_ = at(agent, model, 0)
    assert torch.equal(mean, other[1].inner.running_mean[:4])
    assert torch.equal(var, other[1].inner.running_var[:4])
    assert int(count) == 0


def test_full_shows_the_users_own_in_mid_step_and_the_backward_still_runs():
    model, optimizer, agent = lowered()
    step(model, optimizer)
    rest = buffers(model)
    loss = model(images()).square().mean()
    inside = buffers(model)
    with agent.full():
        assert same(buffers(model), rest)
        with agent.full():
            model.eval()(images())
        model.train()
        assert same(buffers(model), rest)

    assert same(buffers(model), inside)
    loss.backward()
    optimizer.step()
    assert same(buffers(model), rest)


def test_a_step_made_inside_full_leaves_all_whole():
    model, optimizer, agent = lowered()
    step(model, optimizer)
    rest = buffers(model)
    model(images()).square().mean().backward()
    with agent.full():
        optimizer.step()
        assert same(buffers(model), rest)
    assert same(buffers(model), rest)
    step(model, optimizer)
    assert agent.level == 0


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_after_an_exception_in_the_forward_the_users_own_are_back(error):
    model, optimizer, agent = lowered()
    step(model, optimizer)
    rest = buffers(model)

    def fail(*_):
        raise error

    handle = model[1].down.register_forward_pre_hook(fail)
    with pytest.raises(error):
        model(images())
    handle.remove()

    assert same(buffers(model), rest)
    step(model, optimizer)  # at full, with the gradients that were there
    rest = buffers(model)
    step(model, optimizer)
    assert agent.level == 0
    assert same(buffers(model), rest)


def test_detach_in_mid_step_gives_the_users_own_back():
    model, optimizer, agent = lowered()
    step(model, optimizer)
    rest = buffers(model)
    model(images()).sum().backward()
    agent.detach()

    assert same(buffers(model), rest)
    assert all(not module._load_state_dict_post_hooks for module in model.modules())
    optimizer.step()


def test_a_copy_of_the_model_is_a_plain_model():
    model, optimizer, agent = lowered()
    step(model, optimizer)
    twin = copy.deepcopy(model)
    before = at(agent, model, 0)
    twin.load_state_dict(convnet().state_dict())

    assert same(at(agent, model, 0), before)


# --- what is averaged ---


class Reference:
    """The average that a bank should have, from the definition."""

    def __init__(self, momentum: float) -> None:
        self._keep = 1 - momentum
        self._batches: list[tuple[int, torch.Tensor]] = []

    def add(self, step: int, *batches: torch.Tensor) -> None:
        # Within a step torch counts the age in batches.
        self._batches += [(step, batch) for batch in batches]

    def value(self) -> torch.Tensor:
        weighed = [(self._keep ** self._age(i), batch) for i, (_, batch) in enumerate(self._batches)]
        return sum(w * batch for w, batch in weighed) / sum(w for w, _ in weighed)

    def _age(self, index: int) -> int:
        steps = [step for step, _ in self._batches]
        gaps = [max(1, b - a) for a, b in zip(steps[index:], steps[index + 1 :], strict=False)]
        return sum(gaps)


def record(layer: nn.BatchNorm2d) -> list[torch.Tensor]:
    seen: list[torch.Tensor] = []
    layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    return seen


@pytest.mark.parametrize("momentum", [0.1, 0.5, 1.0])
def test_the_first_batch_at_a_level_counts_for_all(momentum):
    model, optimizer, agent = lowered(momentum=momentum)
    seen = record(model[1].outer)
    step(model, optimizer)

    mean, var, count = at(agent, model, 0)[3:]
    torch.testing.assert_close(mean, seen[-1].mean((0, 2, 3)))
    torch.testing.assert_close(var, seen[-1].var((0, 2, 3)))
    assert int(count) == 1


@pytest.mark.parametrize("batches_per_step", [1, 3])
def test_batches_have_weights_by_their_age_in_steps_at_any_level(batches_per_step):
    model, optimizer, agent = attached(momentum=0.2)
    seen = record(model[1].outer)
    means, variances = ([Reference(0.2) for _ in range(TOP)] for _ in range(2))
    numbers = random.Random(0)
    for number in range(60):
        # With stretches at one level, and long absences.
        level = numbers.randrange(TOP + 1) if number % 20 < 10 else number // 20
        agent.request(level)
        seen.clear()
        step(model, optimizer, *(images(seed=100 * number + j) for j in range(batches_per_step)))
        if level < TOP:
            means[level].add(number, *(x.mean((0, 2, 3)) for x in seen))
            variances[level].add(number, *(x.var((0, 2, 3)) for x in seen))

    for level in range(TOP):
        mean, var, _ = at(agent, model, level)[3:]
        # 1 % of the weight: from there on it goes on as torch's own.
        torch.testing.assert_close(mean, means[level].value(), rtol=0.02, atol=0.01)
        torch.testing.assert_close(var, variances[level].value(), rtol=0.02, atol=0.01)


def test_the_top_that_was_left_long_ago_is_led_by_its_next_batches():
    model, optimizer, agent = attached()
    for seed in range(30):
        step(model, optimizer, images(seed=seed))
    agent.request(0)
    for seed in range(60):
        step(model, optimizer, images(seed=seed))
    agent.request(TOP)
    seen = record(model[1].outer)
    step(model, optimizer)

    torch.testing.assert_close(model[1].outer.running_mean, seen[-1].mean((0, 2, 3)), rtol=0.01, atol=0.01)
    assert int(model[1].outer.num_batches_tracked) == 32


def test_a_level_that_is_held_goes_on_as_torchs_own_average_bit_for_bit():
    model, optimizer, agent = lowered(momentum=0.5)
    for seed in range(10):
        step(model, optimizer, images(seed=seed))
    before = at(agent, model, 0)
    twin = nn.BatchNorm2d(4, momentum=0.5)
    twin.load_state_dict(dict(zip(STATISTICS, before[3:], strict=True)), strict=False)
    seen = record(model[1].outer)
    step(model, optimizer)
    twin(seen[-1])

    assert same(at(agent, model, 0)[3:], buffers(twin))


def test_momentum_is_never_another():
    model, optimizer, agent = lowered(momentum=0.3)
    seen = []
    for layer in (model[1].inner, model[1].outer):
        layer.register_forward_hook(lambda module, *_: seen.append(module.momentum))
    for number in range(20):
        agent.request(number % 4)
        step(model, optimizer)

    assert set(seen) == {0.3}


def test_without_momentum_a_level_has_the_plain_mean_of_its_batches():
    model, optimizer, agent = attached(momentum=None)
    seen = record(model[1].outer)
    means = []
    for number in range(24):
        agent.request(number % 3)
        seen.clear()
        step(model, optimizer, images(seed=number))
        if number % 3 == 0:
            means.append(seen[0].mean((0, 2, 3)))

    mean, _, count = at(agent, model, 0)[3:]
    assert int(count) == 8
    torch.testing.assert_close(mean, torch.stack(means).mean(0))


def test_a_layer_that_is_frozen_keeps_what_the_top_has():
    model, optimizer, agent = attached()
    model[1].inner.eval()
    agent.request(1)
    for seed in range(5):
        step(model, optimizer, images(seed=seed))

    mean, var, count = at(agent, model, 1)[:3]
    assert torch.equal(mean, model[1].inner.running_mean[: len(mean)])
    assert torch.equal(var, model[1].inner.running_var[: len(var)])
    assert int(count) == 0


def test_another_process_that_sends_its_buffers_has_averaged_already():
    param = nn.Parameter(torch.ones(4))
    layer = nn.BatchNorm1d(4, momentum=0.25)
    windows = BankedWindows(layer, Ladder(2, (Window(param, ((slice(0, 2),), None)),)), sent=True)
    twin = copy.deepcopy(layer)
    x = torch.randn(6, 4)
    windows.apply(0)
    layer(x)
    windows.stepped()
    windows.restore()
    twin(x)

    with windows.visiting(0):
        assert torch.equal(layer.running_mean, twin.running_mean)


@pytest.fixture(scope="module")
def ranks(pytestconfig, tmp_path_factory):
    return shared(pytestconfig, tmp_path_factory)


def means_on(rank: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What a level has after each of two steps, and the batches' own."""
    model = convnet()
    parallel = DistributedDataParallel(model)
    optimizer = optimizer_of(model)
    agent = greend_agent.attach(parallel, optimizer, levels=4)
    agent.request(0)
    kept, seen = [], record(model[1].outer)
    while len(kept) < 2:
        step(parallel, optimizer, images(32, seed=2 * agent.step_count + rank))
        assert len(agent.costs) == 4, agent.report()
        if agent.level == 0:
            kept.append(at(agent, model, 0)[3])
    return kept, [x.mean((0, 2, 3)) for x in seen[-2:]]


def test_with_ddp_each_rank_goes_on_from_the_averages_of_the_first(ranks):
    (first, own), (second, others) = ranks(means_on)

    torch.testing.assert_close(first[0], own[0])
    torch.testing.assert_close(first[1], (0.9 * own[0] + own[1]) / 1.9)
    torch.testing.assert_close(second[1], 0.9 * first[0] + 0.1 * others[1])


def test_variances_stay_variances_where_they_were_far_larger_before():
    param = nn.Parameter(torch.ones(4))
    layer = nn.BatchNorm1d(4)
    layer.running_var.fill_(1e8)
    windows = BankedWindows(layer, Ladder(2, (Window(param, ((slice(0, 2),), None)),)))
    for seed in range(20):
        windows.apply(0)
        layer(1e-4 * torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)))
        windows.stepped()
        windows.restore()
        with windows.visiting(0):
            assert bool((layer.running_var >= 0).all())


def test_a_lowered_step_and_its_statistics_are_those_of_a_physically_small_model_bit_for_bit():
    model, optimizer, agent = lowered()
    for seed in range(60):  # until the average is torch's own
        step(model, optimizer, images(seed=seed))
    with agent.at(0):
        small = convnet(inner=4)
        small.load_state_dict({name: t.detach().clone() for name, t in _named(model)})
    twin = optimizer_of(small)
    for whole, part in zip(model.parameters(), small.parameters(), strict=True):
        index = tuple(slice(0, n) for n in part.shape)
        moment = optimizer.state[whole]["momentum_buffer"]
        twin.state[part]["momentum_buffer"] = moment[index].clone()
    for seed in range(20):
        step(model, optimizer, images(seed=seed))
        step(small, twin, images(seed=seed))

    with agent.at(0):
        assert same([t for _, t in _named(model)], [t for _, t in _named(small)])


def _named(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def test_nothing_is_held_from_one_step_to_the_next():
    model, optimizer, agent = lowered()

    def living() -> int:
        gc.collect()
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    counts = []
    for number in range(250):
        agent.request(number % 4)
        step(model, optimizer)
        if number in (40, 249):
            counts.append(living())

    assert counts[1] <= counts[0]
    assert all(buffer.grad_fn is None for buffer in model.buffers())


def test_a_compiled_model_gets_no_graph_for_what_the_averages_need():
    net, graphs = convnet(), Graphs()
    model = torch.compile(net, backend=graphs)
    optimizer = optimizer_of(net)
    agent = greend_agent.attach(model, optimizer, levels=4, steps=10_000)
    step(model, optimizer)
    for level in (0, 1, 2, 3):
        agent.request(level)
        step(model, optimizer)
    warm, numbers = graphs.made, random.Random(0)
    visited = set()
    for _ in range(24):
        agent.request(numbers.randrange(4))
        step(model, optimizer)
        visited.add(agent.level)

    assert visited == {0, 1, 2, 3}
    assert graphs.made == warm


# --- beside the steps ---


def test_at_a_level_the_model_is_evaluated_with_that_levels_weights_and_statistics():
    model, optimizer, agent = lowered()
    for seed in range(5):
        step(model, optimizer, images(seed=seed))
    rest, gradients = [t.clone() for _, t in _named(model)], [p.grad for p in model.parameters()]
    state = copy.deepcopy(optimizer.state_dict())
    model.eval()
    with agent.at(0), torch.no_grad():
        assert model[1].up.weight.shape[0] == 4
        low = model(images())
    with torch.no_grad():
        top = model(images())

    assert not torch.equal(low, top)
    assert same([t for _, t in _named(model)], rest)
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))
    for number, values in optimizer.state_dict()["state"].items():
        assert torch.equal(values["momentum_buffer"], state["state"][number]["momentum_buffer"])


def test_evaluating_at_levels_changes_nothing_in_the_training():
    def run(evaluating: bool) -> list[torch.Tensor]:
        model, optimizer, agent = attached()
        for number in range(30):
            agent.request(number % 4)
            step(model, optimizer, images(seed=number))
            if evaluating and number % 3 == 0:
                model.eval()
                for level in range(4):
                    with agent.at(level), torch.no_grad():
                        model(images())
                model.train()
        return [t for level in range(4) for t in at(agent, model, level)] + [*model.parameters()]

    assert same(run(True), run(False))


def test_a_level_that_was_never_run_begins_with_the_tops_first_channels():
    model, _, agent = attached()
    mean, var, _, other, *_ = at(agent, model, 1)

    assert torch.equal(mean, model[1].inner.running_mean[: len(mean)])
    assert torch.equal(var, model[1].inner.running_var[: len(var)])
    assert torch.equal(other, model[1].outer.running_mean)


def test_at_is_refused_for_a_level_that_there_is_not_and_between_forward_and_step():
    model, optimizer, agent = lowered()
    with pytest.raises(ValueError, match="0 to 3"), agent.at(4):
        pass
    model(images()).sum().backward()
    with pytest.raises(RuntimeError, match="step is under way"), agent.at(0):
        pass
    optimizer.step()
    with pytest.raises(ZeroDivisionError), agent.at(0):
        raise ZeroDivisionError
    assert model[1].up.weight.shape[0] == 16
    step(model, optimizer)
    assert agent.level == 0


def test_calibrating_a_level_gives_it_the_statistics_of_the_whole_set_and_leaves_the_others():
    model, optimizer, agent = lowered()
    for number in range(12):
        agent.request(number % 4)
        step(model, optimizer, images(seed=number))
    others = [at(agent, model, level) for level in (0, 2, 3)]
    x = images(37)
    agent.calibrate(x.split(8), level=1)

    assert all(same(at(agent, model, level), o) for level, o in zip((0, 2, 3), others, strict=True))
    with agent.at(1), torch.no_grad():
        torch.testing.assert_close(model[1].inner.running_mean, model[1].up(model[0](x)).mean((0, 2, 3)))
        torch.testing.assert_close(model[1].inner.running_var, model[1].up(model[0](x)).var((0, 2, 3)))
        assert int(model[1].inner.num_batches_tracked) == 5


def test_calibrating_all_levels_includes_the_users_own_and_takes_what_recalibrate_takes():
    model, optimizer, agent = lowered()
    step(model, optimizer)
    x = images(30)
    agent.calibrate(
        [{"input": x}, {"input": "not asked for"}], batches=1, forward=lambda d: model(d["input"])
    )

    for level in range(4):
        with agent.at(level), torch.no_grad():
            torch.testing.assert_close(model[1].inner.running_mean, model[1].up(model[0](x)).mean((0, 2, 3)))
    with pytest.raises(ValueError, match="nothing"):
        agent.calibrate(iter([x]))  # gone after the first level


def test_what_was_calibrated_is_an_average_that_training_goes_on_with():
    model, optimizer, agent = lowered()
    step(model, optimizer)
    agent.calibrate(images(400).split(8), level=0)
    before = at(agent, model, 0)[3]
    seen = record(model[1].outer)
    step(model, optimizer, images(seed=7))

    expected = 0.9 * before + 0.1 * seen[-1].mean((0, 2, 3))
    torch.testing.assert_close(at(agent, model, 0)[3], expected, rtol=0.02, atol=1e-3)


def test_the_agents_state_brings_level_and_banks_back_in_another_process():
    def go_on(model, optimizer, agent) -> list[torch.Tensor]:
        for number in range(8):
            agent.request((0, 2, 3, 3, 1, 0, 0, 3)[number])
            step(model, optimizer, images(seed=50 + number))
        return [t for level in range(4) for t in at(agent, model, level)]

    model, optimizer, agent = attached()
    for number in range(30):
        agent.request(number % 3)
        step(model, optimizer, images(seed=number))
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict(), agent.state_dict()], file)
    want, straight_on = agent.want, go_on(model, optimizer, agent)

    file.seek(0)
    weights, moments, state = torch.load(file)
    other, second, later = attached(seed=3)
    other.load_state_dict(weights)
    second.load_state_dict(moments)
    later.load_state_dict(state)

    assert later.want == want == 2
    assert same(go_on(other, second, later), straight_on)


def test_state_that_is_loaded_before_there_are_levels_is_kept_for_them():
    model, optimizer, agent = lowered()
    for seed in range(5):
        step(model, optimizer, images(seed=seed))
    state = copy.deepcopy(agent.state_dict())

    other = convnet()
    later = greend_agent.attach(other, optimizer_of(other), levels=4)
    later.load_state_dict(state)
    assert later.state_dict()["banks"].keys() == state["banks"].keys()
    step(other, optimizer_of(other))  # of somebody else
    assert later.state_dict()["level"] == 0
    second = later._loop._optimizer
    step(other, second)

    assert same(at(later, other, 0), at(agent, model, 0))


def test_banks_of_another_model_are_not_taken_over(caplog):
    _, _, agent = lowered()
    model, optimizer, _ = lowered()
    step(model, optimizer)
    state = agent.state_dict()
    state["banks"][0] = {
        "away": 0,
        "lacking": 0.5,
        "weight": torch.ones(1),
        "statistics": {"x": torch.ones(1)},
    }
    logging.getLogger("greend").setLevel(logging.WARNING)
    agent.load_state_dict(state)

    assert "another model" in caplog.text


def test_statistics_follow_a_model_that_gets_another_precision():
    model, optimizer, agent = lowered()
    step(model, optimizer)
    before = at(agent, model, 0)
    optimizer.zero_grad()
    model.double()

    for a, b in zip(at(agent, model, 0), before, strict=True):
        assert torch.equal(a, b.to(a.dtype))
    assert at(agent, model, 0)[0].dtype == torch.float64


def test_a_model_whose_statistics_are_a_domains_stays_full_and_says_why():
    model = greend_agent.make_adaptive(convnet())
    optimizer = optimizer_of(model)
    agent = greend_agent.attach(model, optimizer)
    for _ in range(3):
        step(model, optimizer)

    assert agent.costs == [1.0]
    assert "AdaptiveBatchNorm" in agent.report()[0]
