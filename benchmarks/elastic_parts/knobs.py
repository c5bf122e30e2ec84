"""Claim: the knobs that cut no weights save what their shares say, and an idle pace costs nothing.

    python benchmarks/elastic_parts/knobs.py [--quick]

CPU seconds on one thread of forward, backward and step, turned down relative to untouched, variants in turn;
the ratio taken round by round, the median of the rounds. Memory is what a forward keeps for its backward,
as allocated, at its peak. bfloat16 is not claimed to be fast: it is measured, and used where it is.
"""

import statistics
import time
import weakref

import torch
from part import main
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from greend_agent.knobs import microbatch, precision, resolution, tokens
from greend_agent.knobs.pace import Pace
from greend_agent.plan import Call
from greend_agent.plan.probe import undisturbed
from greend_agent.plan.trial import turned_down
from greend_agent.signals import Signals

WIDTH, HEADS, LENGTH, VOCABULARY = 256, 4, 256, 512


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = self.qkv(self.first(x)).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.down(nn.functional.gelu(self.up(self.second(x))))


class GPT(nn.Module):
    def __init__(self, depth=9):
        super().__init__()
        self.words, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(depth)))
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids):
        return self.head(self.blocks(self.words(ids) + self.places(torch.arange(ids.shape[1]))))


def convolutional():
    def block(inside, outside):
        return [
            nn.Conv2d(inside, outside, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, 1, 1),
            nn.ReLU(),
        ]

    layers = [*block(3, 32), *block(32, 64), *block(64, 128)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def found(knob, model, x):
    call = Call.of((x,), {})
    with undisturbed(model, call) as run:
        dials, rejected = knob.find(model, call, run)
    return (dials[0] if dials else None), rejected


def step_s(model, optimizer, x):
    start = time.process_time()
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()
    return time.process_time() - start


def ratio(model, x, dial, count, rounds):
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    ratios = []
    for _ in range(rounds + 1):
        whole = step_s(model, optimizer, x)
        with turned_down(dial, count):
            ratios.append(step_s(model, optimizer, x) / whole)
    return statistics.median(ratios[1:])


class Peak(TorchDispatchMode):
    """Counts the bytes of what was made inside and still lives, at their peak."""

    def __init__(self, known):
        super().__init__()
        self.known = {id(t.untyped_storage()) for t in known}
        self.bytes = self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, (tuple, list)) else (output,):
            if isinstance(tensor, torch.Tensor) and id(storage := tensor.untyped_storage()) not in self.known:
                size = storage.nbytes()
                self.known.add(id(storage))
                weakref.finalize(storage, self.freed, id(storage), size)
                self.bytes += size
                self.most = max(self.most, self.bytes)
        return output

    def freed(self, storage, size):
        self.known.discard(storage)
        self.bytes -= size


def peak(model, x):
    """Bytes at the peak of a forward and backward, without weights and their gradients."""
    model.zero_grad()
    model(x).square().mean().backward()  # so that the gradients are there
    gradients = [p.grad for p in model.parameters()]
    with Peak([*model.parameters(), *gradients, x]) as counted:
        model(x).square().mean().backward()
    return counted.most


def pace_idle_ns(calls):
    """What a pace of 1 costs at each step."""
    pace = Pace(Signals())
    start = time.process_time_ns()
    for _ in range(calls):
        pace.before_step(0)
    return (time.process_time_ns() - start) / calls


def measure(quick):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rounds = 1 if quick else 9
    gpt, ids = GPT(5 if quick else 9), torch.randint(0, VOCABULARY, (1 if quick else 4, LENGTH))
    conv, image = convolutional(), torch.randn(2 if quick else 16, 3, 64, 64)
    figures = {}

    dial, _ = found(tokens, gpt, ids)
    for count in (2, 4):
        figures[f"tokens_step_{count}_of_8"] = ratio(gpt, ids, dial, count, rounds)
    dial, _ = found(resolution, conv, image)
    figures["resolution_step_half_sides"] = ratio(conv, image, dial, dial.full // 2, rounds)
    batch = ids.repeat(4 if quick else 2, 1)
    dial, _ = found(microbatch, gpt, batch)
    whole = peak(gpt, batch)
    for count in (1, 2):
        with turned_down(dial, count):
            figures[f"microbatch_memory_{count}_of_4"] = peak(gpt, batch) / whole
    figures["microbatch_step_1_of_4"] = ratio(gpt, batch, dial, 1, max(2, rounds // 3))
    chosen, rejected = found(precision, gpt, ids)
    print(f"precision: {f'used, {chosen.share(1, gpt):.2f} of the time' if chosen else rejected[0][1]}")
    figures["pace_idle_ns"] = pace_idle_ns(20_000 if quick else 1_000_000)
    return {name: round(value, 3) for name, value in figures.items()}


if __name__ == "__main__":
    main(measure, __doc__)
