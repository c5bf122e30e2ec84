"""Attaching without a line of greend in the script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import greend_agent

from .fake_daemon import FakeDaemon

SHIM = Path(greend_agent.__file__).parent / "shim"

SCRIPT = """
import hashlib, sys, torch
from torch import nn
torch.set_num_threads(1); torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Dropout(0.2), nn.Linear(64, 8))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
for step in range(12):
    optimizer.zero_grad()
    model(torch.randn(4, 8)).square().mean().backward()
    optimizer.step()
digest = hashlib.sha256()
for p in model.parameters():
    digest.update(p.detach().numpy().tobytes())
print(digest.hexdigest())
agents = sys.modules.get("greend_agent.agent")
if agents:
    agent = agents.agent_of(model)
    print(agent.step_count, len(agent.costs), file=sys.stderr)
"""


def run(
    code: str, tmp_path: Path, *, shim: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "GREEND_SOCKET": str(tmp_path / "nobody.sock"), **environment}
    if shim:
        variables |= {"PYTHONPATH": os.pathsep.join([str(SHIM), environment.get("PYTHONPATH", "")])}
        variables.setdefault("GREEND_JOB_ID", "j-test")
    return subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    )


def test_an_ordinary_script_gets_an_agent_and_the_same_weights(tmp_path):
    plain = run(SCRIPT, tmp_path, shim=False)
    followed = run(SCRIPT, tmp_path)

    assert followed.stdout == plain.stdout
    assert "12 4" in followed.stderr  # every step counted, the first one too; four levels


def test_the_daemon_hears_of_every_step_of_an_ordinary_script(tmp_path):
    socket = tmp_path / "fake.sock"
    with FakeDaemon(socket) as daemon:
        result = run(SCRIPT, tmp_path, GREEND_SOCKET=str(socket), GREEND_LEVELS="2")
        daemon.say.put(None)
        daemon.shutdown()

    assert "12 2" in result.stderr
    assert daemon.told("/jobs/j-test/progress")[-1]["step"] == 12
    assert not daemon.told("/v1/jobs")  # the job was known


@pytest.mark.parametrize("without", [{"GREEND_JOB_ID": ""}, {"GREEND_DISABLED": "1"}], ids=["job", "leave"])
def test_without_a_job_or_where_disabled_the_shim_does_nothing(tmp_path, without):
    result = run(
        "import sys, torch.optim; print('greend_agent' in sys.modules, sys.meta_path)", tmp_path, **without
    )

    assert result.stdout.startswith("False")
    assert "_Finder" not in result.stdout


def test_a_process_without_torch_is_undisturbed(tmp_path):
    result = run("import sys; print('torch' in sys.modules, 'greend_agent' in sys.modules)", tmp_path)

    assert (result.stdout, result.stderr) == ("False False\n", "")


def test_a_sitecustomize_that_the_shim_shadows_still_runs(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('the site says hello')")

    result = run("print('and the script too')", tmp_path, PYTHONPATH=str(tmp_path))

    assert result.stdout == "the site says hello\nand the script too\n"


COMPILED = """
import sys, torch
from torch import nn
torch.set_num_threads(1); torch.manual_seed(0)
graphs = []
def backend(graph, inputs):
    graphs.append(graph)
    return graph.forward
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 64), nn.Linear(64, 8)
    def forward(self, x):
        return self.down(nn.functional.gelu(self.up(x)))
inside = Net()
optimizer = torch.optim.AdamW(inside.parameters(), lr=1e-2)
def step():
    optimizer.zero_grad()
    model(torch.randn(4, 8)).square().mean().backward()
    optimizer.step()
WAY
for _ in range(6):
    step()
print(len(graphs), sum(float(p.detach().sum()) for p in inside.parameters()))
agents = sys.modules.get("greend_agent.agent")
agent = agents.agent_of(inside) if agents else None
print(agent and (agent.step_count, len(agent.costs)), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("way", "seen"),
    [
        ("model = torch.compile(inside, backend=backend, fullgraph=True)", "(6, 4)"),
        ("model = inside; model.compile(backend=backend, fullgraph=True)", "(6, 4)"),
        ("model = inside; step = torch.compile(step, backend=backend)", "None"),
    ],
    ids=["wrapper", "in-place", "step"],
)
def test_a_compiled_model_is_found_and_compiled_no_more_than_without_greend(tmp_path, way, seen):
    plain = run(COMPILED.replace("WAY", way), tmp_path, shim=False)
    followed = run(COMPILED.replace("WAY", way), tmp_path)

    assert followed.stdout == plain.stdout
    assert seen in followed.stderr
    assert "Warning" not in followed.stderr


def test_levels_and_knobs_that_make_no_sense_are_named_once_and_the_defaults_taken(tmp_path):
    result = run(SCRIPT, tmp_path, GREEND_LEVELS="many", GREEND_KNOBS="fnf")

    assert "12 4" in result.stderr
    assert result.stderr.count("GREEND_LEVELS: levels='many'") == 1
    assert result.stderr.count("GREEND_KNOBS: knobs: nothing is called 'fnf' (did you mean 'ffn'?)") == 1


def test_costs_can_be_asked_for_without_code(tmp_path):
    assert "12 3" in run(SCRIPT, tmp_path, GREEND_LEVELS="0.3,0.6,1").stderr


DETACHED = """
agent = sys.modules["greend_agent.agent"].agent_of(model)
agent.request(0)
model(torch.randn(4, 8)).sum().backward()
print(agent.level, [tuple(p.shape) for p in model.parameters()][0])
agent.detach()
hooks = len(model._forward_pre_hooks) + len(optimizer._optimizer_step_post_hooks)
print([tuple(p.shape) for p in model.parameters()][0], hooks)
optimizer.step()
"""


def test_an_agent_that_came_without_code_gives_the_model_back_like_any_other(tmp_path):
    result = run(SCRIPT.partition("digest =")[0] + DETACHED, tmp_path)

    assert result.stdout == "0 (16, 8)\n(64, 8) 0\n"


LIVE = """
from greend.cli.attach import _SCRIPT
def ask(optimizer, args, kwargs):
    if not asked:
        asked.append(True)
        exec(_SCRIPT.format(environment={"GREEND_LEVELS": "2"}, path="/nowhere/at/all"))
asked = []
sys.modules["torch.optim.optimizer"].register_optimizer_step_post_hook(ask)
for step"""


def test_what_attach_has_a_running_process_do_attaches_it_even_in_the_middle_of_a_step(tmp_path):
    plain = run(SCRIPT, tmp_path, shim=False)
    followed = run(SCRIPT.replace("for step", LIVE), tmp_path, shim=False)

    assert followed.stdout == plain.stdout
    assert "attaches at the next optimizer step" in followed.stderr
    assert "11 2" in followed.stderr  # the step in whose middle it came is not counted


def test_a_process_without_torch_that_is_asked_to_attach_says_so_and_goes_on(tmp_path):
    script = tmp_path / "asked.py"
    script.write_text("here")
    code = (
        "from greend.cli.attach import _SCRIPT\n"
        f"exec(_SCRIPT.format(environment={{}}, path={str(script)!r}))\nprint('goes on')"
    )
    result = run(code, tmp_path, shim=False)

    assert result.stdout == "goes on\n"
    assert "no PyTorch is loaded in this process" in result.stderr
    assert not script.exists()


def test_a_python_without_the_agent_says_so_in_one_line_and_trains_on(tmp_path):
    hidden = "import sys; sys.modules['greend_agent'] = None\n" + SCRIPT.replace(
        'sys.modules.get("greend_agent.agent")', "None"
    )

    result = run(hidden, tmp_path)

    assert result.stderr.startswith("greend: the agent is not in this Python")
    assert result.stderr.count("\n") == 1
