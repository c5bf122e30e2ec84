"""The middle of a stack sees fewer tokens; the others pass it by."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import greend_agent
from greend_agent.knobs import tokens
from greend_agent.plan.probe import Call, undisturbed
from greend_agent.plan.trial import turned_down

from .nets import OPTIMIZERS

VOCABULARY, WIDTH, LENGTH, HEADS = 50, 16, 32, 2


def rotated(x: torch.Tensor) -> torch.Tensor:
    """Rotary positions, as many codes write them."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[-2])[:, None] / 10 ** (torch.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], dim=-1)


class Block(nn.Module):
    def __init__(self, *, causal: bool = True, rotary: bool = False, post: bool = False, drop: float = 0.0):
        super().__init__()
        self.causal, self.rotary, self.post = causal, rotary, post
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down, self.drop = nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH), nn.Dropout(drop)

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        if self.rotary:
            q, k = rotated(q), rotated(k)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.drop(self.out(y.transpose(1, 2).reshape(batch, length, WIDTH)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.post:
            x = self.first(x + self.attend(x))
            return self.second(x + self.down(torch.relu(self.up(x))))
        x = x + self.attend(self.first(x))
        return x + self.down(torch.relu(self.up(self.second(x))))


class GPT(nn.Module):
    def __init__(self, depth: int = 7, **options):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block(**options) for _ in range(depth))
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = self.through(block, x)
        return self.head(x)

    def through(self, block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return block(x)


def ids(seed: int = 1, length: int = LENGTH, batch: int = 3) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def find(model: nn.Module, *args, **options):
    call = Call.of(args or (ids(),), {})
    with undisturbed(model, call) as run:
        return tokens.find(model, call, run, **options)


def dial_of(model: nn.Module, *args, **options) -> tokens.Tokens:
    (dial,), rejected = find(model, *args, **options)
    assert rejected == []
    return dial


def seen_by(module: nn.Module) -> list[torch.Tensor]:
    """What a block is given, each time."""
    inputs: list[torch.Tensor] = []
    inner = module.first.register_forward_pre_hook(lambda m, args: inputs.append(args[0].detach().clone()))
    assert inner is not None
    return inputs


def test_the_first_two_blocks_and_the_last_see_all_tokens_and_the_middle_a_part():
    model = GPT()
    dial = dial_of(model)
    inputs = [seen_by(block) for block in model.blocks]
    with turned_down(dial, 3):
        model(ids())

    assert dial.blocks == tuple(model.blocks[2:6])
    assert [x[0].shape[1] for x in inputs] == [32, 32, 12, 12, 12, 12, 32]


def test_the_tokens_left_out_come_out_of_the_middle_as_they_went_in_and_the_others_as_from_the_few_alone():
    model = GPT().eval()
    dial = dial_of(model)
    first, few, last = seen_by(model.blocks[1]), seen_by(model.blocks[2]), seen_by(model.blocks[6])
    with turned_down(dial, 2):
        model(ids())
    before = model.blocks[1](first[0])
    kept = tokens.distinct(before, 8)

    assert torch.equal(few[0], before.gather(1, kept[..., None].expand(-1, -1, WIDTH)))
    x = few[0]
    for block in model.blocks[2:6]:
        x = block(x)
    assert torch.equal(last[0], before.scatter(1, kept[..., None].expand(-1, -1, WIDTH), x))


def test_the_tokens_most_like_the_one_before_are_left_out_sample_by_sample_and_in_order():
    x = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
    x[0, 3], x[0, 6] = 2 * x[0, 2], x[0, 5]
    x[1, 1], x[1, 2] = x[1, 0], x[1, 0]

    assert tokens.distinct(x, 6).tolist() == [[0, 1, 2, 4, 5, 7], [0, 3, 4, 5, 6, 7]]


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_the_first_token_is_never_left_out(count):
    x = torch.randn(4, 8, 6)
    for kept in (tokens.distinct(x, count), tokens.drawn(x, count)):
        assert kept.shape == (4, count)
        assert (kept[:, 0] == 0).all()
        assert (kept.diff(dim=1) > 0).all()


def test_a_batch_keeps_what_its_neediest_sample_needs():
    x = torch.randn(2, 8, 64, generator=torch.Generator().manual_seed(0))
    x[0, 1:] = x[0, :1]  # one long repetition
    assert tokens.needed(x[:1], 0.9) == 1
    x[1, 5] = x[1, 4]
    assert tokens.needed(x, 0.9) == 7


def test_simple_inputs_take_fewer_tokens_than_the_position_allows_and_no_input_takes_more():
    model = GPT()
    model.places.weight.data.zero_()
    dial = dial_of(model, alike=0.99)
    inputs = seen_by(model.blocks[3])
    with turned_down(dial, 6):
        model(torch.full((2, LENGTH), 7))
        model(ids())

    assert [x.shape[1] for x in inputs] == [1, 24]


def test_what_is_random_is_drawn_in_training_only():
    model = GPT()
    dial = dial_of(model, keep="random")
    few = seen_by(model.blocks[2])
    with turned_down(dial, 4):
        for mode in (True, True, False, False):
            model.train(mode)
            model(ids())

    assert not torch.equal(few[0], few[1])
    assert torch.equal(few[2], few[3])


def test_a_forward_that_is_run_again_as_a_whole_draws_the_same_tokens():
    def gradients(again: bool) -> list[torch.Tensor]:
        model = GPT()
        with turned_down(dial_of(model, keep="random"), 4):
            torch.manual_seed(5)
            output = checkpoint(model, ids(), use_reentrant=False) if again else model(ids())
            output.square().mean().backward()
        return [p.grad for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(gradients(True), gradients(False), strict=True))


def test_a_causal_model_stays_causal_in_what_it_computes():
    model = GPT().eval()
    dial = dial_of(model)
    x, changed = ids(), ids()
    changed[:, -1] = (changed[:, -1] + 1) % VOCABULARY
    kept = []
    model.blocks[2].first.register_forward_pre_hook(lambda m, args: kept.append(args[0]))
    with turned_down(dial, 5):
        one, other = model(x), model(changed)

    alike = [torch.equal(a, b) for a, b in zip(kept[0][:, :-1], kept[1][:, :-1], strict=True)]
    assert any(alike)  # of these the same tokens were kept
    assert torch.allclose(one[alike, :-1], other[alike, :-1], atol=1e-6)


def test_gradients_reach_every_block_and_the_tokens_left_out():
    model = GPT()
    dial = dial_of(model)
    with turned_down(dial, 1):
        x = model.words(ids()).detach().requires_grad_()
        y = x
        for block in model.blocks:
            y = block(y)
        y.square().mean().backward()

    assert (x.grad.abs().sum(dim=-1) > 0).all()
    assert all(p.grad is not None for block in model.blocks for p in block.parameters())


def test_whatever_the_length_and_the_batch_of_later_calls_the_output_keeps_its_shape():
    model = GPT()
    dial = dial_of(model)
    for count in range(1, dial.full):
        with turned_down(dial, count):
            for batch, length in ((1, 1), (2, 2), (1, 5), (5, 32)):
                output = model(ids(batch=batch, length=length))
                assert output.shape == (batch, length, VOCABULARY)
                assert output.dtype == torch.float32


def test_a_middle_of_a_single_block_gathers_and_scatters_in_one():
    model = GPT(depth=4)
    dial = dial_of(model)
    inputs = [seen_by(block) for block in model.blocks]
    with turned_down(dial, 4):
        model(ids())

    assert [x[0].shape[1] for x in inputs] == [32, 32, 16, 32]


def test_a_copy_and_a_pickle_made_meanwhile_are_ordinary_models():
    model = GPT()
    whole = model.eval()(ids())
    with turned_down(dial_of(model), 2):
        copied, pickled = copy.deepcopy(model), pickle.dumps(model)

    assert b"greend" not in pickled
    for other in (copied, pickle.loads(pickled)):
        assert torch.equal(other(ids()), whole)


class Masked(GPT):
    def __init__(self):
        super().__init__()
        self.mask = torch.ones(LENGTH, LENGTH).tril().bool()
        for block in self.blocks:
            block.attend = lambda x, own=block: own.out(
                nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=self.mask)
            )


class Checkpointed(GPT):
    def through(self, block, x):
        return checkpoint(block, x, use_reentrant=False) if self.training else block(x)


class Skipping(GPT):
    def forward(self, ids):
        x = first = self.words(ids)
        for block in self.blocks:
            x = block(x) + 0.1 * first
        return self.head(x)


class Collecting(GPT):
    def forward(self, ids):
        x, seen = self.words(ids), []
        for block in self.blocks:
            x = block(x)
            seen.append(x)
        return self.head(torch.stack(seen).mean(dim=0))


class Twice(GPT):
    def through(self, block, x):
        return block(block(x))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: GPT(rotary=True), "at which place a token stands"),
        (lambda: GPT(post=True), "not residual"),
        (Masked, "raises RuntimeError"),
        (Checkpointed, "run again in the backward"),
        (Skipping, "do not hand their output to the next"),
        (Collecting, "raises RuntimeError: stack expects each tensor to be equal size"),
        (Twice, "not called once each"),
        (lambda: GPT().bfloat16(), "half precision"),
    ],
    ids=["rotary", "post-norm", "masked", "checkpointed", "skipping", "collecting", "twice", "half"],
)
def test_a_stack_whose_tokens_cannot_be_left_out_is_rejected_and_it_says_why(model, words):
    dials, ((name, reason),) = find(model())

    assert dials == []
    assert "blocks.2" in name
    assert words in reason


def test_samples_are_never_taken_for_tokens_where_they_come_second():
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, norm_first=True)  # (tokens, batch, width)
    model = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)

    assert "samples do not come first" in find(model, torch.randn(5, 16, WIDTH))[1][0][1]


def test_a_batch_of_one_sample_is_enough():
    assert dial_of(GPT(), ids(batch=1)).full == 8


def test_a_stack_of_plain_layers_or_of_vectors_is_none():
    assert find(nn.Sequential(*(nn.Linear(4, 4) for _ in range(9))), torch.randn(2, 8, 4)) == ([], [])
    flat = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(9)))
    assert "(batch, tokens, width)" in find(flat, torch.randn(2, 4))[1][0][1]


def test_attention_falls_with_the_square_and_all_else_with_the_number():
    dial = dial_of(GPT())
    block = dial.blocks[0]

    assert dial.share(4, block) == 0.25
    assert dial.share(4, block.up) == 0.5
    assert [dial.count(f, 4) for f in (0.01, 0.25, 0.5, 0.95, 1.0)] == [1, 2, 4, 8, 8]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for n in range(steps):
        optimizer.zero_grad()
        logits = model(ids(n))
        nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids(n)[:, 1:].flatten()).backward()
        optimizer.step()


def test_at_the_top_training_is_what_it_is_without_greend_to_the_last_bit():
    def run(with_greend: bool) -> list[torch.Tensor]:
        model = GPT(drop=0.2)
        optimizer = OPTIMIZERS["adamw"](model.parameters())
        if with_greend:
            agent = greend_agent.attach(model, optimizer, knobs=["tokens"])
        torch.manual_seed(7)
        train(model, optimizer, 6)
        if with_greend:
            assert len(agent.costs) > 1, agent.report()
        return [p.detach().clone() for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(run(True), run(False), strict=True))


def test_a_level_takes_tokens_from_the_middle_and_gives_them_back_at_the_step():
    model = GPT()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = greend_agent.attach(model, optimizer, knobs=["tokens"])
    train(model, optimizer, 1)
    agent.request(0)
    seen = seen_by(model.blocks[3])
    train(model, optimizer, 2)

    assert [x.shape[1] for x in seen] == [seen[0].shape[1]] * 2
    assert seen[0].shape[1] < LENGTH
    assert not any("forward" in vars(block) for block in model.blocks)
    assert agent.level == 0


def test_it_learns_at_a_low_level():
    model = GPT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    agent = greend_agent.attach(model, optimizer, knobs=["tokens"])
    torch.manual_seed(0)
    text = torch.arange(LENGTH).repeat(3, 1) % 10
    losses: list[float] = []
    for n in range(40):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(text)[:, :-1].flatten(0, 1), text[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if n == 0:
            agent.request(0)

    assert agent.level == 0
    assert losses[-1] < 0.3 * losses[1]
