"""The running statistics of batch norm, taken anew from a whole set of data."""

from __future__ import annotations

import gc
import random

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import greend_agent
from greend_agent import recalibrate

from .graphs import Graphs

BATCH_NORMS = {
    "1d": (nn.BatchNorm1d, (3,)),
    "1d with a length": (nn.BatchNorm1d, (3, 5)),
    "2d": (nn.BatchNorm2d, (3, 4, 5)),
    "3d": (nn.BatchNorm3d, (3, 2, 3, 4)),
    "synchronised": (nn.SyncBatchNorm, (3, 4)),
}


def convnet(drop: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(drop),
        nn.Conv2d(4, 4, 3),
        nn.BatchNorm2d(4),
    )


def images(number: int, seed: int = 1) -> torch.Tensor:
    return 3 + 2 * torch.randn(number, 2, 8, 8, generator=torch.Generator().manual_seed(seed))


def statistics_of(model: nn.Module) -> list[torch.Tensor]:
    return [buffer.clone() for buffer in model.buffers()]


def expect_unchanged(model: nn.Module, before: list[torch.Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), before, strict=True))


def living_tensors() -> int:
    gc.collect()
    # By type: some of torch's lazy objects warn when they are asked for their class.
    return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())


@pytest.mark.parametrize("kind", BATCH_NORMS)
@pytest.mark.parametrize("cuts", [[17], [8, 8, 1], [1] * 17, [5, 0, 12]])
def test_mean_and_unbiased_variance_are_those_of_the_whole_set_however_it_is_cut(kind, cuts):
    make, shape = BATCH_NORMS[kind]
    layer = make(shape[0])
    values = 5 + torch.randn(17, *shape) * torch.linspace(1, 4, 17).view(17, *[1] * len(shape))

    recalibrate(layer, values.split(cuts))

    channels = values.transpose(0, 1).reshape(shape[0], -1)
    torch.testing.assert_close(layer.running_mean, channels.mean(1))
    torch.testing.assert_close(layer.running_var, channels.var(1))


def test_the_variance_between_batches_counts_which_an_average_of_their_variances_leaves_out():
    layer = nn.BatchNorm1d(1)
    low, high = torch.randn(50, 1) - 10, torch.randn(50, 1) + 10

    recalibrate(layer, [low, high])

    assert float(layer.running_var) > 100 > float((low.var() + high.var()) / 2)


def test_a_deep_layer_gets_nearly_what_it_would_if_the_whole_set_were_one_batch():
    whole, cut = convnet(), convnet()
    values = images(64)

    recalibrate(whole, [values])
    recalibrate(cut, values.split(2))

    # Upstream, the first batches were normalised with the statistics of few.
    torch.testing.assert_close(cut[5].running_mean, whole[5].running_mean, rtol=0.05, atol=0.02)
    torch.testing.assert_close(cut[5].running_var, whole[5].running_var, rtol=0.05, atol=0.02)


def test_a_batch_of_one_is_no_trouble_where_torch_could_not_normalise_it():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4), nn.BatchNorm1d(4))
    values = torch.randn(9, 3)

    recalibrate(model, values.split(1))

    with torch.no_grad():
        torch.testing.assert_close(model[1].running_mean, model[0](values).mean(0))
    model.eval()
    assert bool(model(values).isfinite().all())


def test_it_makes_no_use_of_what_was_there_before_and_gives_the_same_again():
    model = convnet()
    recalibrate(model, images(20).split(6))
    once = statistics_of(model)
    recalibrate(model, images(20).split(6))

    expect_unchanged(model, once)


def test_only_the_first_batches_are_asked_for_when_it_is_told_how_many():
    asked = []

    def loader():
        for number, batch in enumerate(images(40).split(10)):
            asked.append(number)
            yield batch

    layer = nn.BatchNorm2d(2)
    recalibrate(layer, loader(), batches=2)

    assert asked == [0, 1]
    torch.testing.assert_close(layer.running_mean, images(40)[:20].mean((0, 2, 3)))


def test_dropout_is_off_and_every_mode_is_afterwards_as_it_was():
    model = convnet(drop=0.9)
    model[1].eval()  # as of a layer that is frozen
    modes = [module.training for module in model.modules()]
    recalibrate(model, [images(30)])
    model.eval()

    assert modes == [True, True, False, True, True, True, True]
    with torch.no_grad():
        torch.testing.assert_close(model[5].running_mean, model[:5](images(30)).mean((0, 2, 3)))


def test_modes_are_put_back_one_by_one():
    model = convnet().eval()
    model[3].train()
    recalibrate(model, [images(30)])

    assert [module.training for module in model] == [False, False, False, True, False, False]


def test_random_numbers_are_not_used_up_also_when_the_loader_shuffles():
    model = convnet(drop=0.5)
    torch.manual_seed(3)
    random.seed(3)
    torch_state, python_state = torch.get_rng_state(), random.getstate()

    def augmented():
        for batch in DataLoader(TensorDataset(images(20)), batch_size=5, shuffle=True):
            yield batch[0] * random.random()

    recalibrate(model, augmented())

    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state


def test_parameters_and_gradients_are_left_alone_and_no_graph_is_held():
    model = convnet()
    model(images(4)).sum().backward()
    parameters = [p.detach().clone() for p in model.parameters()]
    gradients = [p.grad for p in model.parameters()]
    values = images(8).requires_grad_()
    before = living_tensors()

    for _ in range(20):
        recalibrate(model, [values])

    assert living_tensors() <= before
    assert all(buffer.grad_fn is None and not buffer.requires_grad for buffer in model.buffers())
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), parameters, strict=True))
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))


def test_batches_are_counted_so_that_a_cumulative_average_goes_on_rightly():
    layer = nn.BatchNorm1d(1, momentum=None)
    layer.num_batches_tracked.fill_(1000)

    recalibrate(layer, [torch.zeros(4, 1), torch.ones(4, 1)])
    layer(torch.full((4, 1), 8.0))

    assert layer.momentum is None
    assert int(layer.num_batches_tracked) == 3
    assert float(layer.running_mean) == pytest.approx((0 + 1 + 8) / 3)


def test_a_layer_that_is_called_twice_gets_the_statistics_of_all_it_is_given():
    layer = nn.BatchNorm1d(2)
    first, second = torch.randn(6, 2), 7 + torch.randn(6, 2)

    recalibrate(layer, [(first, second)], forward=lambda pair: (layer(pair[0]), layer(pair[1])))

    torch.testing.assert_close(layer.running_mean, torch.cat([first, second]).mean(0))
    torch.testing.assert_close(layer.running_var, torch.cat([first, second]).var(0))


def test_a_layer_that_is_not_called_keeps_its_own():
    model = nn.ModuleList([nn.BatchNorm1d(2), nn.BatchNorm1d(2)])
    before = statistics_of(model[1])

    recalibrate(model, [torch.randn(5, 2)], forward=model[0])

    expect_unchanged(model[1], before)
    assert int(model[0].num_batches_tracked) == 1


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return self.norm(input=x * scale)


def test_items_are_tensors_or_tuples_or_dictionaries_or_whatever_the_caller_makes_of_them():
    values = torch.randn(8, 2)
    loaders = [
        [values],
        [(values, "labels")],
        [[values, torch.zeros(8)]],
        [{"x": values, "scale": 1.0}],
        [({"x": values}, "labels")],
    ]
    for loader in loaders:
        model = TwoInputs()
        recalibrate(model, loader)
        torch.testing.assert_close(model.norm.running_mean, values.mean(0))
    model = TwoInputs()
    recalibrate(model, [{"images": values}], forward=lambda item: model(item["images"], 2.0))
    torch.testing.assert_close(model.norm.running_mean, 2 * values.mean(0))


def test_half_precision_is_summed_in_single():
    layer = nn.BatchNorm1d(1)
    values = torch.full((4000, 1), 1.0, dtype=torch.bfloat16)
    values[::2] = 1.0078125  # the next number that there is

    recalibrate(layer, values.split(100), forward=lambda batch: layer(batch))

    assert float(layer.running_mean) == pytest.approx(1.00390625, rel=1e-5)


def test_a_compiled_model_is_recalibrated_too_and_its_graph_is_kept():
    model, graphs = convnet(), Graphs()
    fast = torch.compile(model, backend=graphs)
    fast(images(4))
    made = graphs.made
    recalibrate(fast, images(12).split(4))
    fast(images(4))

    twin = convnet()
    twin(images(4))
    recalibrate(twin, images(12).split(4))
    twin(images(4))
    assert graphs.made == made == 1
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), twin.buffers(), strict=True))


def test_after_an_error_the_statistics_are_those_of_before():
    model = convnet()
    model(images(4))
    before = statistics_of(model)
    hooks = [len(module._forward_pre_hooks) for module in model.modules()]

    with pytest.raises(RuntimeError):
        recalibrate(model, [images(5), torch.zeros(2, 7, 8, 8)])

    expect_unchanged(model, before)
    assert [len(module._forward_pre_hooks) for module in model.modules()] == hooks
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("loader", [[torch.randn(1, 2)], [], [torch.zeros(0, 2)]])
def test_too_little_data_is_refused_and_changes_nothing(loader):
    layer = nn.BatchNorm1d(2)
    before = statistics_of(layer)

    with pytest.raises(ValueError, match="recalibrate"):
        recalibrate(layer, loader)

    expect_unchanged(layer, before)


def test_a_model_without_running_statistics_is_refused():
    for model in (nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)):
        with pytest.raises(ValueError, match="no batch norm"):
            recalibrate(model, [torch.randn(4, 2)])


def test_a_lazy_layer_without_a_size_is_refused():
    with pytest.raises(ValueError, match="call the model once"):
        recalibrate(nn.Sequential(nn.LazyBatchNorm1d()), [torch.randn(4, 2)])


def test_on_other_digits_the_statistics_of_the_whole_set_are_better_than_those_of_one_batch():
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    one_batch, whole_set, source = [], [], []
    for seed in range(3):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU())
        model.extend([nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10)])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for which in [*torch.randperm(1000).split(50)] * 5:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[which]), y[which]).backward()
            optimizer.step()
        model.eval()
        other = x[1000:] * 0.5 + 0.4  # paler, on grey paper

        def accuracy(model=model, other=other):
            with torch.no_grad():
                return float((model(other).argmax(1) == y[1000:]).float().mean())

        source.append(accuracy())
        recalibrate(model, other.split(32), batches=1)
        one_batch.append(accuracy())
        recalibrate(model, other.split(32))
        whole_set.append(accuracy())

    assert sum(source) < 0.9 * sum(one_batch)
    assert sum(one_batch) < sum(whole_set)


def test_it_is_public():
    assert greend_agent.recalibrate is recalibrate
