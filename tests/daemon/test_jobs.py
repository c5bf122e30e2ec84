"""What the daemon knows of a live job between two ticks."""

import os
from dataclasses import replace

import pytest

from greend import wire
from greend.clock import NS, ManualClock
from greend.config import Governor
from greend.daemon.jobs import JobBook, signature_of
from greend.daemon.live import Steps
from greend.errors import NotFound, PermissionDenied
from greend.governor.profile import LevelProfile
from greend.sources.processes import ProcessTree
from greend.store.profiles import ProfileKey
from greend.types import Decision, Job, Limits

from .conftest import Past

UID = 1000


def book(past: Past | None = None, budget_j: float | None = None) -> JobBook:
    return JobBook(past or Past(), lambda: None, budget_j, device="a processor", boot_id="boot")


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


def test_a_report_that_is_late_or_comes_twice_changes_nothing():
    steps = Steps()
    first, second = wire.Progress(100, 3, 1 * NS), wire.Progress(120, 2, 2 * NS)
    for progress in (first, second):
        steps.report(progress)
    known = replace(steps)
    for progress in (second, first, second):
        steps.report(progress)

    assert steps == known
    assert (steps.done, steps.level) == (120, 2)


def test_a_loop_that_has_not_been_heard_since_a_restart_stands_where_it_was():
    assert Steps(done=70).at(ManualClock().now(), total=None) == 70


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


def test_how_long_earlier_runs_of_the_command_were_is_known_newest_first():
    runs = [replace(register(book()), steps_done=500, tail_j=3.0), replace(register(book()), steps_done=400)]
    jobs = book(Past(*runs))

    live = jobs.get(register(jobs).id)

    assert live.steps_before == (500, 400)
    assert live.tail_prior_j == 3.0
    assert live.job.steps_total is None  # a guess is not a number that somebody gave


def test_what_levels_cost_the_last_run_on_the_same_device_is_where_the_next_one_starts():
    learned = LevelProfile.prior([0.5, 1.0])
    for _ in range(5):
        learned = learned.observe(1, 10.0, 100).observe(0, 6.0, 100)
    past = Past(learned=learned.remembered())
    jobs = book(past)
    job = register(jobs)
    jobs.attach(job.id, wire.AttachRequest(os.getpid(), [0.5, 1.0]), UID, ManualClock().now())

    profile = jobs.get(job.id).profile
    assert past.asked == [ProfileKey(job.signature, "a processor", (0.5, 1.0))]
    assert profile.step_j() == pytest.approx((0.06, 0.1), rel=0.02)
    assert profile.known(0)


@pytest.mark.parametrize(("by_hand", "total"), [(None, 700), (800, 800)])
def test_what_the_script_says_of_the_steps_counts_unless_the_user_said_so_by_hand(by_hand, total):
    jobs = book()
    job = register(jobs, steps=by_hand)
    jobs.attach(job.id, wire.AttachRequest(os.getpid(), [0.5, 1.0], steps=700), UID, ManualClock().now())

    assert jobs.get(job.id).job.steps_total == total


@pytest.mark.parametrize(
    ("given", "default", "budget_j", "on_loss"),
    [
        ({"budget_j": 100.0}, None, 100.0, "hold"),
        ({"limits": Limits(energy_j=100.0)}, 50.0, 100.0, "hold"),
        ({"limits": Limits(power_w=40.0), "budget_j": 100.0}, 50.0, 100.0, "hold"),
        ({"limits": Limits(power_w=40.0)}, 50.0, None, "hold"),
        ({}, 50.0, 50.0, "top"),
        ({}, None, None, "top"),
    ],
)
def test_limits_given_by_hand_outlive_the_daemon_and_a_default_does_not(given, default, budget_j, on_loss):
    jobs = book(budget_j=default)
    live = jobs.get(register(jobs, **given).id)
    live.state = replace(live.state, decision=Decision(0, "why", 0, 0))

    assert live.job.budget_j == budget_j
    assert live.directive(Governor()).on_loss == on_loss


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
    learned, attached = live.profile, live.attached

    jobs.attach(job.id, message, UID, clock.advance(10))

    assert live.profile is learned
    assert live.attached == attached


def test_runs_of_one_command_by_one_user_share_a_signature():
    assert signature_of(["a", "b"], 1) == signature_of(["a", "b"], 1)
    assert len({signature_of(["a", "b"], 1), signature_of(["a b"], 1), signature_of(["a", "b"], 2)}) == 3


def attached(jobs: JobBook, costs: tuple[float, ...] = (0.25, 0.5, 1.0)) -> str:
    job = register(jobs)
    jobs.attach(job.id, wire.AttachRequest(os.getpid(), list(costs)), UID, ManualClock().now())
    return job.id


def told(jobs: JobBook, job: str, level: int, at_s: float) -> wire.Directive:
    live = jobs.get(job)
    live.state = replace(live.state, decision=Decision(level, "why", 0, 0))
    live.number(ManualClock().now().after(at_s))
    return live.directive(Governor())


def test_every_directive_is_numbered_higher_than_all_before_it_also_at_the_same_instant():
    jobs = book()
    job = attached(jobs)

    numbers = [told(jobs, job, 1, at_s).seq for at_s in (0.0, 0.0, 0.0, 5.0, 4.0)]

    assert numbers == sorted(set(numbers))


def test_a_daemon_that_comes_later_numbers_higher_however_little_it_knows():
    first, later = book(), book()
    numbers = [told(jobs, attached(jobs), 1, at_s).seq for jobs, at_s in ((first, 100.0), (later, 101.0))]

    assert numbers[0] < numbers[1]


@pytest.mark.parametrize(
    ("level", "refused", "unusable"),
    [
        (1, "", {}),  # taken
        (2, "CUDA out of memory", {1: "CUDA out of memory"}),
        (1, "nobody here can stop the loop", {}),  # the level was taken, something else was not
    ],
)
def test_a_level_that_the_agent_could_not_take_is_unusable_with_its_reason(level, refused, unusable):
    jobs = book()
    job = attached(jobs)
    seq = told(jobs, job, 1, 0.0).seq
    jobs.progress(job, wire.Progress(10, level, 5 * NS, seq, refused), UID)

    assert jobs.get(job).refused == unusable


def test_what_is_said_of_a_directive_that_nobody_remembers_marks_no_level():
    jobs = book()
    job = attached(jobs)
    jobs.progress(job, wire.Progress(10, 2, 5 * NS, 77, "too late"), UID)

    assert jobs.get(job).refused == {}


def test_other_levels_are_decided_anew():
    jobs = book()
    job = attached(jobs)
    seq = told(jobs, job, 1, 0.0).seq
    jobs.progress(job, wire.Progress(10, 2, 5 * NS, seq, "no"), UID)
    jobs.attach(job, wire.AttachRequest(os.getpid(), [0.5, 1.0]), UID, ManualClock().now())

    live = jobs.get(job)
    assert (live.state.decision, live.refused, live.top) == (None, {}, 1)


def test_limits_set_by_hand_replace_the_machines_default_and_taking_them_off_brings_it_back():
    woken = []
    jobs = JobBook(Past(), lambda: woken.append(1), 50.0)
    job = register(jobs).id
    jobs.limit(job, Limits(energy_j=80.0, order="mixed"), UID)
    live = jobs.get(job)
    assert (live.job.limits, live.job.by_hand) == (Limits(energy_j=80.0, order="mixed"), True)
    assert live.unsaid and woken

    jobs.limit(job, Limits(), UID)
    assert (live.job.limits, live.job.by_hand) == (Limits(energy_j=50.0), False)


def test_only_the_owner_and_root_may_limit_a_job():
    jobs = book()
    job = register(jobs).id

    with pytest.raises(PermissionDenied, match="belongs to user 1000"):
        jobs.limit(job, Limits(energy_j=1.0), uid=1001)
    jobs.limit(job, Limits(energy_j=2.0), uid=0)
    assert jobs.get(job).job.budget_j == 2.0


def adopted(past: Past, job: Job, decision: Decision | None, wall_stepped_s: float = 0.0) -> JobBook:
    """A later daemon, a minute on, after the wall clock was stepped."""
    clock = ManualClock()
    clock.advance(60.0)
    clock.step_wall(wall_stepped_s)
    jobs = book(past)
    jobs.adopt(job, ProcessTree(job.pid), 42.0, decision, clock.now())
    return jobs


@pytest.mark.parametrize("wall_stepped_s", [0.0, 3600.0, -3600.0])
def test_a_job_goes_on_after_a_restart_with_its_limits_books_levels_and_decision(wall_stepped_s):
    learned = LevelProfile.prior([0.5, 1.0]).observe(1, 10.0, 100)
    job = replace(
        register(book(), limits=Limits(energy_j=100.0)),
        costs=(0.5, 1.0), steps_total=1000, steps_done=300, carbon_g=0.5, cpu_s=1.25,
    )  # fmt: skip
    decision = Decision(0, "the budget", 5, 290)
    jobs = adopted(Past(learned=learned.remembered()), job, decision, wall_stepped_s)

    live = jobs.get(job.id)
    assert live.job == job
    assert (live.spent_j, live.spent_g, live.cpu_s) == (42.0, 0.5, 1.25)
    assert live.profile.step_j() == pytest.approx(learned.step_j(), rel=0.02)
    assert live.attached <= ManualClock().now().after(60.0)
    directive = live.directive(Governor())
    assert (directive.level, directive.on_loss) == (0, "hold")
    assert directive.seq > 1_000_000  # milliseconds since boot, at the least


def test_a_job_adopted_before_any_decision_has_nothing_to_follow_yet():
    jobs = adopted(Past(), register(book()), None)

    assert jobs.live()[0].directive(Governor()) is None


def test_a_process_is_known_by_boot_and_start_and_not_by_its_pid_alone():
    job = register(book())

    assert job.process == f"boot:{ProcessTree(os.getpid()).start}"
    assert register(JobBook(Past(), lambda: None, boot_id="another")).process != job.process
