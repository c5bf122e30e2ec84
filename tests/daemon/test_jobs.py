"""What the daemon knows of a live job between two ticks."""

import os
from dataclasses import replace

import pytest

from greend import wire
from greend.clock import NS, ManualClock
from greend.daemon.jobs import JobBook, Steps, signature_of
from greend.errors import NotFound, PermissionDenied
from greend.sources.processes import ProcessTree
from greend.types import Job

UID = 1000


def book(last: Job | None = None, budget_j: float | None = None) -> JobBook:
    return JobBook(lambda _: last, lambda: None, budget_j)


def register(jobs: JobBook, pid: int | None = None, **request: object) -> Job:
    pid = pid or os.getpid()
    message = wire.JobRequest(pid, ["python", "train.py"], **request)  # type: ignore[arg-type]
    return jobs.register(message, UID, ProcessTree(pid), ManualClock().now())


def test_steps_are_carried_forward_at_their_own_pace_between_reports():
    clock, steps = ManualClock(), Steps()
    steps.report(wire.Progress(100, 3, clock.now().mono_ns))
    clock.advance(0.5)
    steps.report(wire.Progress(110, 3, clock.now().mono_ns))

    assert steps.at(clock.advance(0.25), total=None) == pytest.approx(115)


def test_a_loop_that_stands_still_is_not_carried_forward_for_ever():
    clock, steps = ManualClock(), Steps()
    steps.report(wire.Progress(100, 3, clock.now().mono_ns))
    steps.report(wire.Progress(110, 3, clock.advance(0.5).mono_ns))

    assert steps.at(clock.advance(60), total=None) == 110


def test_steps_never_go_beyond_the_total_nor_back():
    clock, steps = ManualClock(), Steps()
    steps.report(wire.Progress(98, 3, clock.now().mono_ns))
    steps.report(wire.Progress(99, 3, clock.advance(0.1).mono_ns))
    steps.report(wire.Progress(42, 3, clock.advance(-0.05).mono_ns))

    assert steps.at(clock.advance(1), total=100) == 100
    assert steps.done == 99


def test_a_job_is_named_after_its_script():
    assert register(book()).name == "train.py"
    assert register(book(), name="night run").name == "night run"


def test_what_the_last_run_taught_helps_the_next_one_of_the_same_command():
    last = replace(register(book()), steps_done=500, tail_j=3.0)
    jobs = book(last)

    job = register(jobs)

    assert job.steps_total == 500
    assert jobs.get(job.id).tail_prior_j == 3.0
    assert last.id in jobs.get(job.id).steps_known_by


def test_what_the_user_says_of_the_steps_beats_what_the_last_run_taught():
    last = replace(register(book()), steps_done=500)

    assert register(book(last), steps=800).steps_total == 800


@pytest.mark.parametrize(("by_hand", "total"), [(None, 700), (800, 800)])
def test_what_the_script_says_of_the_steps_counts_unless_the_user_said_so_by_hand(by_hand, total):
    jobs = book()
    job = register(jobs, steps=by_hand)
    jobs.attach(job.id, wire.AttachRequest(os.getpid(), [0.5, 1.0], steps=700), UID, ManualClock().now())

    assert jobs.get(job.id).job.steps_total == total


@pytest.mark.parametrize(
    ("given", "default", "budget_j", "on_loss"),
    [
        (100.0, None, 100.0, "hold"),
        (None, 50.0, 50.0, "top"),
        (100.0, 50.0, 100.0, "hold"),
        (None, None, None, "top"),
    ],
)
def test_a_budget_given_by_hand_outlives_the_daemon_and_a_default_does_not(given, default, budget_j, on_loss):
    jobs = book(budget_j=default)
    job = register(jobs, budget_j=given)

    assert job.budget_j == budget_j
    assert ("hold" if job.by_hand else "top") == on_loss


def test_a_process_that_belongs_to_a_job_already_is_that_job():
    jobs = book()

    assert register(jobs).id == register(jobs, name="again").id


def test_only_the_owner_and_root_may_speak_for_a_job():
    jobs = book()
    job = register(jobs)

    with pytest.raises(PermissionDenied, match="belongs to user 1000"):
        jobs.progress(job.id, wire.Progress(1, 3, NS), uid=1001)
    jobs.progress(job.id, wire.Progress(1, 3, NS), uid=UID)
    jobs.progress(job.id, wire.Progress(2, 3, 2 * NS), uid=0)

    assert jobs.get(job.id).steps.done == 2


def test_an_unknown_job_is_said():
    with pytest.raises(NotFound, match="j-nope"):
        book().get("j-nope")


def test_an_agent_that_comes_again_keeps_what_was_learned():
    jobs, clock = book(), ManualClock()
    job = register(jobs)
    message = wire.AttachRequest(os.getpid(), [0.5, 1.0])
    jobs.attach(job.id, message, UID, clock.now())
    live = jobs.get(job.id)
    assert live.profile is not None
    live.profile = live.profile.observe(1, 10.0, 100)
    learned, attached = live.profile, live.state.attached

    jobs.attach(job.id, message, UID, clock.advance(10))

    assert live.profile is learned
    assert live.state.attached == attached


def test_runs_of_one_command_by_one_user_share_a_signature():
    assert signature_of(["a", "b"], 1) == signature_of(["a", "b"], 1)
    assert len({signature_of(["a", "b"], 1), signature_of(["a b"], 1), signature_of(["a", "b"], 2)}) == 3
