"""Importance, and a new order of the units that changes nothing but which of them a low level keeps."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import greend_agent
from greend_agent.dial import spread
from greend_agent.knobs.width import Side, Width
from greend_agent.plan import Call, make_plan
from greend_agent.plan.rank import importance, permutable, reorder
from greend_agent.windows.window import WindowSet

from .middles import FFN, D, H, Own, X, plan_of
from .nets import batches, net, step
from .zoo import FAMILIES, levels, oracle, tensors, training_loss

X0 = batches(1)[0]
BY_NAME = {family.name: family for family in FAMILIES}
NAMES = [
    name
    for name in (
        "residual MLP", "GPT, separate qkv", "GPT, fused qkv", "ResNet, bottleneck", "VGG, flatten",
        "MobileNetV3, SE", "GPT-2", "BERT", "Llama, GQA", "Phi-3, fused", "GPT-NeoX, interleaved",
        "MobileNetV2", "Swin",
    )
    if name in BY_NAME
]  # fmt: skip


def outputs(model, inputs):
    args, kwargs = copy.deepcopy(inputs)
    with torch.no_grad():
        return tensors(model.eval()(*args, **kwargs))


def close(a, b, tolerance):
    return all(
        float((x - y).abs().max()) <= tolerance * float(y.abs().max()) for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_reordered_model_computes_what_it_did(name):
    model, call = BY_NAME[name].model(), BY_NAME[name].inputs(0)
    plan = make_plan(model, Call.of(*call), levels=4)
    before = outputs(model, BY_NAME[name].inputs(1))

    orders = reorder(model, permutable(model, Call.of(*call), plan.dials))

    assert any(not torch.equal(order, torch.arange(len(order))) for order in orders.values())
    assert close(outputs(model, BY_NAME[name].inputs(1)), before, 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_looking_whether_units_can_change_places_leaves_no_trace(name):
    model, call = BY_NAME[name].model(), Call.of(*BY_NAME[name].inputs(0))
    plan = make_plan(model, call, levels=4)
    before = copy.deepcopy(model.state_dict())

    permutable(model, call, plan.dials)

    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["GPT, separate qkv", "ResNet, bottleneck"])
@pytest.mark.parametrize(
    "make", [lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9), lambda p: torch.optim.AdamW(p, lr=1e-4)]
)
def test_training_goes_on_as_if_nothing_had_been_reordered(name, make):
    family = BY_NAME[name]
    trained = []
    for rank_after in (3, None):
        model = family.model()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        optimizer = make(model.parameters())
        plan = make_plan(model, Call.of(*family.inputs(0)), levels=4)
        for k in range(8):
            optimizer.zero_grad()
            training_loss(model.train()(*family.inputs(k)[0])).backward()
            optimizer.step()
            if k == rank_after:
                reorder(model, plan.dials, optimizer)
        trained.append(outputs(model, family.inputs(9)))

    assert close(*trained, 1e-4)


def test_the_optimizers_state_and_the_gradients_follow_their_weights():
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    plan = make_plan(model, Call.of((batches(1)[0],), {}), levels=4)
    for x in batches(3):
        step(model, optimizer, x)
    up = model[0].up.weight
    kept = [t.clone() for t in (up, up.grad, *(optimizer.state[up][k] for k in ("exp_avg", "exp_avg_sq")))]

    order = next(o for dial, o in reorder(model, plan.dials, optimizer).items() if dial.makes[0].tensor is up)

    now = [up, up.grad, *(optimizer.state[up][k] for k in ("exp_avg", "exp_avg_sq"))]
    assert not torch.equal(order, torch.arange(len(order)))
    assert all(torch.equal(a, b[order]) for a, b in zip(now, kept, strict=True))


def test_heads_move_as_a_whole_in_each_segment():
    # Two segments, of units of 2 and of 1 entries; three units.
    makes = nn.Parameter(torch.arange(9.0)[:, None])
    reads = nn.Parameter(torch.tensor([[1.0, 1.0, 3.0, 3.0, 2.0, 2.0]]))
    reader = nn.Linear(6, 1)
    dial = Width("heads", "it", 3, (Side(makes, 0, (2, 1)),), (Side(reads, 1, (2,)),), (reader,))
    makes.grad, reads.grad = torch.ones_like(makes), torch.ones_like(reads)

    reorder(reader, [dial])

    assert makes.flatten().tolist() == [2, 3, 4, 5, 0, 1, 7, 8, 6]
    assert reads.flatten().tolist() == [3, 3, 2, 2, 1, 1]


def lowest(model, plan, x):
    windows = WindowSet(spread(plan.dials, [plan.table.counts[0], plan.table.counts[-1]]))
    windows.apply(0)
    output = outputs(model, ((x,), {}))
    windows.restore()
    return output


@pytest.mark.parametrize("with_gradients", [True, False])
def test_level_0_is_nearer_to_the_whole_after_ranking(with_gradients):
    model = net()
    x, other = batches(2)
    plan = make_plan(model, Call.of((x,), {}), levels=4)
    with torch.no_grad():
        for block in model[:-1]:
            # What a level keeps at first matters least.
            block.up.weight[:48] *= 0.1
            block.down.weight[:, :48] *= 0.1
    if with_gradients:
        model(x).square().mean().backward()
    whole = outputs(model, ((other,), {}))[0]

    before = (lowest(model, plan, other)[0] - whole).norm()
    reorder(model, plan.dials)
    after = (lowest(model, plan, other)[0] - whole).norm()

    assert after < 0.2 * before


def test_units_that_no_input_wakes_come_last_by_gradient_however_large_their_weights():
    model = FFN(nn.ReLU)
    with torch.no_grad():
        model.up.weight[8:16] *= 10
        model.up.bias[8:16] = -1000.0
    (dial,) = plan_of(model).dials
    by_norm = importance(dial).argsort(descending=True)
    model(X).square().mean().backward()
    by_gradient = importance(dial)

    assert set(by_norm[:8].tolist()) == set(range(8, 16))
    assert by_gradient[8:16].max() == 0 < by_gradient[:8].min()


def test_behind_a_norm_its_scale_counts_and_not_the_size_of_the_weights():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 3))
    with torch.no_grad():
        model[0].weight[:4] *= 100
        model[1].weight[:4] = 0.01
    (dial,) = make_plan(model.train(), Call.of((torch.randn(2, 3, 8, 8),), {}), levels=4).dials

    orders = reorder(model, [dial])

    assert set(orders[dial][-4:].tolist()) == {0, 1, 2, 3}


def test_units_that_meet_a_constant_of_their_own_keep_their_places():
    constant = torch.linspace(1, 2, H)
    model = nn.Sequential(FFN(lambda: Own(lambda x: x * constant[: x.shape[-1]])), FFN(nn.GELU))
    plan = plan_of(model)

    good = permutable(model, Call.of((X,), {}), plan.dials)

    assert len(plan.dials) == 2
    assert [dial.name for dial in good] == ["1.up -> 1.down"]


def test_state_that_cannot_follow_is_refused_before_anything_is_moved():
    model = net()
    optimizer = torch.optim.Adafactor(model.parameters())
    plan = make_plan(model, Call.of((batches(1)[0],), {}), levels=4)
    step(model, optimizer, batches(1)[0])
    before = copy.deepcopy(model.state_dict())

    with pytest.raises(ValueError, match="Adafactor keeps a tensor of"):
        reorder(model, plan.dials, optimizer)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_chain_of_widths_is_looked_at_in_parts_that_do_not_touch():
    model = nn.Sequential(nn.Linear(D, H), nn.ReLU(), nn.Linear(H, H), nn.ReLU(), nn.Linear(H, D))
    plan = plan_of(model)

    assert len(plan.dials) == 2
    assert set(permutable(model, Call.of((X,), {}), plan.dials)) == set(plan.dials)


def test_after_reordering_the_levels_still_keep_their_promises():
    model, family = BY_NAME["ResNet, bottleneck"].model(), BY_NAME["ResNet, bottleneck"]
    plan = make_plan(model, Call.of(*family.inputs(0)), levels=4)

    reorder(model, plan.dials)

    for counts in levels.levels_below(plan):
        assert not oracle.broken_promises(model, plan.dials, counts, [family.inputs(1)])


# --- asked of the agent ---


def attached(model, make=lambda p: torch.optim.AdamW(p, lr=1e-3)):
    optimizer = make(model.parameters())
    return optimizer, greend_agent.attach(model, optimizer, levels=4)


def test_the_agent_ranks_once_after_the_next_step_and_training_goes_on():
    xs = batches(12)
    plain, asked = net(), net()
    alone, _ = attached(plain)
    optimizer, agent = attached(asked)
    for k, x in enumerate(xs):
        step(plain, alone, x)
        if k == 4:
            agent.rank()
        step(asked, optimizer, x)

    assert agent.report()[-1] == "ranked: the units of 3 of 3 widths"
    assert sum("ranked" in line for line in agent.report()) == 1
    assert not torch.equal(asked[0].up.weight, plain[0].up.weight)
    assert close([asked(xs[0]).detach()], [plain(xs[0]).detach()], 1e-4)


def test_asked_before_the_model_is_known_the_agent_ranks_when_it_is():
    model = net()
    optimizer, agent = attached(model)

    agent.rank()
    for x in batches(3):
        step(model, optimizer, x)

    assert agent.report()[-1].startswith("ranked")


def test_levels_work_before_and_after_a_ranking():
    model = net()
    optimizer, agent = attached(model)
    xs = batches(16)
    for k, x in enumerate(xs):
        if k in (2, 10):
            agent.request(0)
        if k in (6, 14):
            agent.request(3)
        if k in (4, 8):
            agent.rank()
        before = model[0].up.weight.detach().clone()
        step(model, optimizer, x)
        assert agent.level == (0 if 2 <= k < 6 or 10 <= k < 14 else 3)
        if k in (11, 12, 13):
            assert torch.equal(model[0].up.weight[16:], before[16:])
            assert not torch.equal(model[0].up.weight[:16], before[:16])

    assert sum("ranked" in line for line in agent.report()) == 2
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_checkpoint_after_ranking_is_one_of_the_plain_model():
    model = net()
    optimizer, agent = attached(model)
    agent.rank()
    for x in batches(4):
        step(model, optimizer, x)

    plain = net(seed=1)
    plain.load_state_dict(model.state_dict())
    agent.detach()

    assert torch.equal(plain(X0), model(X0))


def test_what_had_missed_steps_is_brought_up_to_date_before_it_changes_places():
    model = net()
    optimizer, agent = attached(model, lambda p: torch.optim.AdamW(p, lr=1e-5))
    for k, x in enumerate(batches(60)):
        agent.request(0 if k > 1 else 3)
        if k == 59:
            agent.rank()
        step(model, optimizer, x)

    # Two steps of sixty are a thirtieth of the second moment of those that had them all.
    moment = optimizer.state[model[0].up.weight]["exp_avg_sq"].mean(1).sort().values
    assert moment[:48].mean() > 0.3 * moment[48:].mean()
