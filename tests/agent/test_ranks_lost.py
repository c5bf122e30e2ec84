"""A rank that dies takes two processes with it, so that this comes after all else that needs them."""

from __future__ import annotations

import os

import pytest

from .ddp_job import Job
from .nets import HIDDEN, WIDTH, net
from .pair import shared


@pytest.fixture
def ranks(pytestconfig, tmp_path_factory):
    return shared(pytestconfig, tmp_path_factory)


def run_vanishing(rank):
    job = Job(rank, net())
    job.steps([0, 0, 0])
    if rank == 1:
        os._exit(0)
    try:
        job.steps([0, 0])
    except RuntimeError as error:
        raised = str(error)
    return raised, tuple(job.inner[0].up.weight.shape), job.inner[0].up.weight.grad.shape, len(job.levels)


def test_when_a_rank_is_lost_the_others_hear_it_as_from_ddp_and_have_a_whole_model(ranks):
    raised, shape, gradient, steps = ranks(run_vanishing, survivors=1)[0]

    assert "Connection" in raised
    assert shape == tuple(gradient) == (HIDDEN, WIDTH)
    assert steps == 3
