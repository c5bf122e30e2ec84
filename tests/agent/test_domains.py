"""Batch norm with statistics for several domains, and one set of weights."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from greend_agent import (
    AdaptiveBatchNorm1d,
    AdaptiveBatchNorm2d,
    AdaptiveBatchNorm3d,
    adapted,
    domain_state_dict,
    load_domain_state_dict,
    make_adaptive,
    recalibrate,
)

PAIRS = [
    (nn.BatchNorm1d, AdaptiveBatchNorm1d, (3,)),
    (nn.BatchNorm2d, AdaptiveBatchNorm2d, (3, 4, 4)),
    (nn.BatchNorm3d, AdaptiveBatchNorm3d, (3, 2, 4, 4)),
]


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2), nn.BatchNorm1d(2))


def data(centre: float, seed: int = 1) -> torch.Tensor:
    return centre + torch.randn(32, 4, generator=torch.Generator().manual_seed(seed))


def trained_on_two_domains() -> nn.Module:
    model = make_adaptive(plain())
    for seed in range(30):
        model(data(0, seed))
        with adapted(model, "target"):
            model(data(5, seed))
    return model


@pytest.mark.parametrize(("of", "adaptive", "shape"), PAIRS)
def test_without_a_domain_it_is_the_plain_layer_bit_for_bit(of, adaptive, shape):
    torch.manual_seed(0)
    one, other = of(3), adaptive(3)
    for training in (True, False):
        one.train(training)
        other.train(training)
        for _ in range(3):
            x = torch.randn(6, *shape)
            assert torch.equal(one(x), other(x))
    assert list(one.state_dict()) == list(other.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True))


def test_a_domain_begins_with_the_statistics_of_the_source_and_goes_its_own_way():
    layer = AdaptiveBatchNorm1d(1)
    layer(torch.tensor([[4.0], [6.0]]))
    source = layer.running_mean.clone()

    layer.adapt("target")
    assert torch.equal(layer.running_mean, source)
    layer(torch.tensor([[90.0], [110.0]]))
    target = layer.running_mean.clone()
    layer.adapt()

    assert torch.equal(layer.running_mean, source)
    layer.adapt("target")
    assert torch.equal(layer.running_mean, target)
    assert target > source


def test_weight_and_bias_are_shared_and_the_optimizer_stays_valid():
    model = plain()
    parameters = [*model.parameters()]
    make_adaptive(model)
    with adapted(model, "target"):
        assert all(p is q for p, q in zip(model.parameters(), parameters, strict=True))


def test_making_a_model_adaptive_leaves_its_layers_hooks_and_outputs():
    model, twin = plain(), plain()
    layer, seen = model[1], []
    layer.register_forward_hook(lambda *_: seen.append(1))

    assert make_adaptive(model) is model
    assert model[1] is layer
    assert isinstance(layer, AdaptiveBatchNorm1d)
    assert torch.equal(model(data(0)), twin(data(0)))
    assert seen == [1]


def test_the_state_dict_is_the_sources_in_whatever_domain_and_loads_into_a_plain_model():
    model = trained_on_two_domains()
    state = copy.deepcopy(model.state_dict())
    with adapted(model, "target"):
        inside = model.state_dict()
        assert list(inside) == list(plain().state_dict())
        assert all(torch.equal(inside[name], value) for name, value in state.items())

    other = plain()
    other.load_state_dict(state)
    assert torch.equal(other.eval()(data(0)), model.eval()(data(0)))


def test_what_is_loaded_in_a_domain_goes_to_the_source():
    model = trained_on_two_domains()
    with adapted(model, "target"):
        before = model[1].running_mean.clone()
        model.load_state_dict(plain().state_dict())
        assert torch.equal(model[1].running_mean, before)
    assert not bool(model[1].running_mean.any())


def test_the_domains_are_saved_apart_and_loaded_into_another_model():
    model = trained_on_two_domains()
    file = io.BytesIO()
    torch.save(domain_state_dict(model), file)
    file.seek(0)
    saved = torch.load(file)

    other = make_adaptive(plain())
    load_domain_state_dict(other, saved)
    assert other[1].domains == ["target"]
    model.eval(), other.eval()
    with adapted(model, "target"), adapted(other, "target"):
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(data(5)), model(data(5)))


def test_a_plain_model_becomes_that_of_a_domain():
    model = trained_on_two_domains().eval()
    other = plain().eval()
    other.load_state_dict(model.state_dict())
    missing = other.load_state_dict(domain_state_dict(model)["target"], strict=False)

    assert not missing.unexpected_keys
    with adapted(model, "target"):
        assert torch.equal(other(data(5)), model(data(5)))


def test_a_saved_layer_that_is_not_there_is_an_error_that_names_it():
    with pytest.raises(KeyError, match=r"1\.running_mean"):
        load_domain_state_dict(make_adaptive(plain()), {"target": {}})


def test_recalibrating_in_a_domain_leaves_the_source_as_it_was():
    model = trained_on_two_domains()
    source = copy.deepcopy(model.state_dict())
    with adapted(model, "far"):
        recalibrate(model, [data(50)])
        with torch.no_grad():
            torch.testing.assert_close(model[1].running_mean, model[0](data(50)).mean(0))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in source.items())
    assert model[1].domains == ["far", "target"]


def test_two_domains_in_one_step_and_one_backward():
    model = make_adaptive(plain())
    loss = model(data(0)).sum()
    with adapted(model, "target"):
        loss = loss + model(data(5)).sum()
    loss.backward()

    assert all(p.grad is not None for p in model.parameters())


def test_after_an_error_inside_the_domain_of_before_is_back():
    model = make_adaptive(plain())
    with adapted(model, "a"):
        with pytest.raises(ZeroDivisionError), adapted(model, "b"):
            raise ZeroDivisionError
        assert {model[1].domain, model[4].domain} == {"a"}
    assert model[1].domain is None


def test_all_domains_go_along_to_another_precision_and_into_a_copy():
    model = copy.deepcopy(trained_on_two_domains()).double()
    with adapted(model, "target"):
        assert model[1].running_mean.dtype == torch.float64
        target = model[1].running_mean.mean()
    assert abs(target - model[1].running_mean.mean()) > 0.1


def test_a_layer_without_running_statistics_has_no_domains():
    layer = AdaptiveBatchNorm1d(2, track_running_stats=False)
    layer.adapt("target")
    assert layer.domains == []


@pytest.mark.parametrize("name", ["", "a.b"])
def test_a_name_that_cannot_be_kept_is_refused(name):
    with pytest.raises(ValueError, match="name"):
        AdaptiveBatchNorm1d(2).adapt(name)


def test_a_model_that_was_not_made_adaptive_is_refused():
    with pytest.raises(ValueError, match="make_adaptive"), adapted(plain(), "target"):
        pass
