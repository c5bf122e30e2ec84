"""Smaller images, where what comes out does not depend on their size."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

import greend_agent
from greend_agent.knobs import resolution
from greend_agent.plan.probe import Call, undisturbed
from greend_agent.plan.trial import turned_down

from .nets import OPTIMIZERS


class Net(nn.Module):
    """Convolutions of total stride 4, pooled to one pixel."""

    def __init__(self, *tail: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.deep, self.drop = nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Dropout(0.2)
        self.tail = nn.Sequential(*(tail or (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))))

    def forward(self, image: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return self.tail(self.drop(torch.relu(self.deep(torch.relu(self.norm(self.stem(image))))))) * scale


def images(batch: int = 4, height: int = 32, width: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def find(model: nn.Module, *args, **kwargs):
    call = Call.of(args, kwargs)
    with undisturbed(model, call) as run:
        return resolution.find(model, call, run)


def dial_of(model: nn.Module, *args, **kwargs) -> resolution.Resolution:
    (dial,), rejected = find(model, *args, **kwargs)
    assert rejected == []
    return dial


def seen_by(module: nn.Module) -> list[torch.Tensor]:
    inputs: list[torch.Tensor] = []
    module.register_forward_pre_hook(lambda m, args: inputs.append(args[0].detach()))
    return inputs


def test_sides_go_down_in_total_strides_and_the_output_stays():
    model = Net()
    dial = dial_of(model, images())
    seen, shapes = seen_by(model.stem), []
    for count in range(dial.least, dial.full):
        with turned_down(dial, count):
            shapes.append(model(images()).shape)

    assert dial.stride == 4
    assert [x.shape[2:] for x in seen] == [(4 * n, 4 * n) for n in range(2, 8)]
    assert set(shapes) == {(4, 5)}


def test_a_picture_that_is_not_square_keeps_its_form():
    model = Net()
    dial = dial_of(model, images(height=32, width=64))
    seen = seen_by(model.stem)
    with turned_down(dial, 4):
        model(images(height=32, width=64))

    assert seen[0].shape == (4, 3, 16, 32)
    assert dial.share(4, model.stem) == 0.25


def test_small_images_are_the_means_over_their_areas():
    model = Net()
    seen = seen_by(model.stem)
    with turned_down(dial_of(model, images()), 4):
        seen.clear()
        model(images())

    assert torch.allclose(seen[0], nn.functional.avg_pool2d(images(), 2), atol=1e-6)


def test_images_of_a_size_that_was_not_tried_stay_as_they_are():
    model = Net()
    dial = dial_of(model, images())
    seen = seen_by(model.stem)
    with turned_down(dial, 4):
        model(images(height=48, width=48))
        model(images(batch=1))

    assert [x.shape[2:] for x in seen] == [(48, 48), (16, 16)]


def test_an_image_given_by_keyword_is_found_and_the_forward_keeps_its_signature():
    model = Net()
    dial = dial_of(model, image=images(), scale=2.0)
    seen = seen_by(model.stem)
    with turned_down(dial, 2):
        model(scale=2.0, image=images())
        assert list(inspect.signature(model.forward).parameters) == ["image", "scale"]

    assert seen[0].shape[2:] == (8, 8)
    assert "forward" not in vars(model)


def test_gradients_reach_the_whole_image():
    model = Net()
    dial = dial_of(model, images())
    image = images().requires_grad_()
    with turned_down(dial, 2):
        model(image).sum().backward()

    assert (image.grad.abs().sum(dim=(0, 1)) > 0).all()


@pytest.mark.parametrize(
    ("model", "args", "words"),
    [
        (lambda: Net(nn.Flatten(), nn.Linear(16 * 64, 5)), (images(),), "raises RuntimeError"),
        (lambda: Net(nn.Conv2d(16, 2, 1)), (images(),), "changes shape"),
        (lambda: nn.Linear(8, 2), (torch.randn(4, 8),), "no images"),
        (lambda: nn.Bilinear(4, 4, 2), (torch.randn(2, 2, 2, 4), torch.randn(2, 2, 2, 4)), "2 images"),
        (Net, (images(height=7, width=7),), "none smaller"),
        (lambda: nn.Embedding(9, 3), (torch.zeros(2, 3, 8, 8, dtype=torch.int64),), "no images"),
    ],
    ids=["flat", "dense", "vectors", "two", "tiny", "whole numbers"],
)
def test_where_the_size_matters_it_is_rejected_and_it_says_why(model, args, words):
    dials, ((name, reason),) = find(model(), *args)

    assert dials == []
    assert name == "resolution"
    assert words in reason


def test_only_convolutions_before_the_pooling_get_cheaper():
    model = Net()
    dial = dial_of(model, images())

    assert list(dial.parts) == [model.stem, model.deep]
    assert [dial.count(fraction, 4) for fraction in (0.01, 0.25, 0.5, 1.0)] == [2, 4, 6, 8]
    assert dial.share(8, model.stem) == 1.0


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for n in range(steps):
        optimizer.zero_grad()
        model(images(seed=n)).square().mean().backward()
        optimizer.step()


def test_at_the_top_training_is_what_it_is_without_greend_and_below_it_sees_less():
    def run(with_greend: bool) -> tuple[list[torch.Tensor], object, nn.Module, torch.optim.Optimizer]:
        model = Net()
        optimizer = OPTIMIZERS["adamw"](model.parameters())
        agent = greend_agent.attach(model, optimizer, knobs=["resolution"]) if with_greend else None
        torch.manual_seed(7)
        train(model, optimizer, 5)
        return [t.clone() for t in model.state_dict().values()], agent, model, optimizer

    with_it, agent, model, optimizer = run(True)
    without, *_ = run(False)
    assert all(torch.equal(a, b) for a, b in zip(with_it, without, strict=True))
    assert len(agent.costs) == 4, agent.report()

    agent.request(0)
    seen = seen_by(model.stem)
    train(model, optimizer, 2)
    assert [x.shape[2:] for x in seen] == [(16, 16)] * 2
    assert agent.costs[0] == pytest.approx(0.25, abs=0.02)
