"""At most half of the blocks are skipped, the least influential first, and what is skipped does not move."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

import greend_agent
from greend_agent.dial import spread
from greend_agent.knobs.depth import LEAST
from greend_agent.plan.probe import Call
from greend_agent.windows.window import WindowSet

from .blocks import IMAGES, TOKENS, Basic, Own, PostLN, PreLN, ReZero, Scaled, disagreements, found, net


def test_the_least_influential_are_skipped_first_and_the_ends_never_while_half_are_kept():
    model = net(ReZero)
    weights = [0.0, 0.5, 0.1, 0.4, 0.2, 0.6, 0.3, 0.0]
    for block, weight in zip(model[1:-1], weights, strict=True):
        block.weight.data.fill_(weight)
    blocks = list(model[1:-1])

    dial, _ = found(model)

    order = [next(k for k, b in enumerate(blocks) if b is one.module) for one in dial.blocks]
    assert order[:6] == [2, 4, 6, 3, 1, 5]
    assert set(order[6:]) == {0, 7}
    least = dial.count(0.01, 4)
    sets = [set(dial.turned(count).idle) for count in range(least, dial.full)]
    assert all(above < below for below, above in itertools.pairwise(sets))
    assert not sets[0] & {*blocks[0].parameters(), *blocks[7].parameters()}


def test_at_most_half_are_skipped_and_the_work_of_a_layer_inside_is_all_or_nothing():
    dial, _ = found(net(PreLN, depth=9))

    assert [dial.count(f / 10, 4) for f in range(1, 11)] == [5, 5, 5, 5, 5, 5, 6, 7, 8, 9]
    inside = dial.blocks[0].module.up
    assert [dial.share(count, inside) for count in (5, 8, 9)] == [0.0, 0.0, 1.0]
    assert dial.share(5, dial.blocks[-1].module.up) == 1.0


def test_a_shallow_net_is_left_to_the_other_knobs_unless_depth_is_asked_for():
    shallow = net(PreLN, depth=6)

    assert found(shallow)[0] is None
    assert found(shallow, enough=LEAST)[0].full == 6
    assert found(net(PreLN, depth=3), enough=LEAST)[0] is None


def test_when_too_few_of_many_can_be_skipped_the_report_says_so():
    model = nn.Sequential(*net(PreLN, depth=5)[:-1], *net(PostLN, depth=5)[1:])

    dial, rejected = found(model)

    assert dial is None
    assert rejected[-1] == ("1 ... 5", "only 5 blocks can be skipped; from 8 on that is worth while")


def test_the_smallest_of_nested_residual_blocks_are_what_is_skipped():
    def pair():
        return nn.Sequential(Own(lambda x, y: x + y), Own(lambda x, y: x + y))

    dial, rejected = found(net(pair, depth=4))

    assert dial.full == 8
    assert not rejected


def test_frozen_blocks_are_left_alone():
    model = net(PreLN, depth=10)
    trained = [p for block in model[3:] for p in block.parameters()]

    dial, rejected = found(model, trained=trained)

    assert dial.full == 8
    reason = "cannot be skipped: none of its weights is trained by the optimizer"
    assert [why for _, why in rejected] == [reason] * 2


def test_looking_changes_nothing_in_the_model():
    model = net(Basic, image=True).train()
    before, attributes = copy.deepcopy(model.state_dict()), [dict(vars(m)) for m in model.modules()]
    versions = [p._version for p in model.parameters()]

    found(model)

    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.values(), strict=True))
    assert [p._version for p in model.parameters()] == versions
    assert all(vars(m).keys() == a.keys() for m, a in zip(model.modules(), attributes, strict=True))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_skipped_blocks_have_no_part_in_a_step_and_do_not_move():
    model = net(PreLN).train()
    dial, _ = found(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    windows = WindowSet(spread([dial], [[4], [dial.full]]), optimizer)
    idle = dial.turned(4).idle

    for level in (1, 0, 0):
        windows.apply(level)
        before = [p.detach().clone() for p in idle]
        optimizer.zero_grad()
        model(TOKENS).square().mean().backward()
        assert all((p.grad is None) == (level == 0) for p in idle)
        optimizer.step()
        windows.restore()
    kept = [p for p in model.parameters() if not any(p is q for q in idle)]

    assert all(torch.equal(p, b) for p, b in zip(idle, before, strict=True))
    assert kept
    assert all(optimizer.state[p]["step"] == 3 for p in kept)
    assert all(optimizer.state[p]["step"] == 1 for p in idle)


def test_depth_kernel_and_width_go_down_together_under_an_agent():
    model = net(Scaled, image=True).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    agent = greend_agent.attach(model, optimizer, levels=[0.15, 0.5, 1], knobs=["ffn", "kernel", "depth"])

    def step():
        optimizer.zero_grad()
        model(IMAGES).square().mean().backward()
        optimizer.step()

    step()
    assert len(agent.costs) == 3, agent.report()
    assert agent.costs[0] < 0.2
    agent.request(0)
    before = copy.deepcopy(model.state_dict())
    for _ in range(2):
        step()
    after = model.state_dict()
    moved = {name: float((after[name] != before[name]).float().mean()) for name in after}

    # At most half of the blocks, 3x3 of 7x7, and not more than half of the hidden width.
    still = {name.split(".")[0] for name, part in moved.items() if name.endswith("mix.weight") and not part}
    assert len(still) == 4
    assert all(part == 0 for name, part in moved.items() if name.split(".")[0] in still)
    worked = [str(k) for k in range(1, 9) if str(k) not in still]
    assert all(moved[f"{k}.mix.weight"] == pytest.approx(9 / 49) for k in worked)
    assert all(0 < moved[f"{k}.up.weight"] <= 0.5 for k in worked)
    agent.detach()
    assert not any("forward" in vars(module) for module in model.modules())


def transformer(kind):
    transformers = pytest.importorskip("transformers")
    ids = torch.randint(0, 90, (2, 12), generator=torch.Generator().manual_seed(0))
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 8, "num_attention_heads": 4}
    text = {"vocab_size": 90, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(n_embd=32, n_layer=8, n_head=4, **text)
        return transformers.GPT2LMHeadModel(config), Call.of((), {"input_ids": ids, "labels": ids})
    if kind == "llama":
        config = transformers.LlamaConfig(num_key_value_heads=2, **small, **text)
        return transformers.LlamaForCausalLM(config), Call.of((), {"input_ids": ids, "labels": ids})
    if kind == "bert":
        config = transformers.BertConfig(**small, vocab_size=90)
        return transformers.BertForMaskedLM(config), Call.of((), {"input_ids": ids})
    config = transformers.ViTConfig(**small, image_size=16, patch_size=4)
    return transformers.ViTForImageClassification(config), Call.of((torch.randn(2, 3, 16, 16),), {})


@pytest.mark.parametrize("kind", ["gpt2", "llama", "vit"])
def test_the_blocks_of_transformers_as_people_use_them_are_skipped(kind):
    model, call = transformer(kind)
    dial, rejected = found(model.train(), call, trained=list(model.parameters()))

    assert (dial.full, rejected) == (8, [])
    assert disagreements(model, dial, call) == []


def test_the_blocks_of_bert_norm_their_sums_and_are_left_alone():
    model, call = transformer("bert")

    dial, rejected = found(model.train(), call)

    assert dial is None
    assert len(rejected) == 8
    assert all("NativeLayerNorm" in why for _, why in rejected)
