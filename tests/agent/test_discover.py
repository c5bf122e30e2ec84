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


def test_a_python_without_the_agent_says_so_in_one_line_and_trains_on(tmp_path):
    hidden = "import sys; sys.modules['greend_agent'] = None\n" + SCRIPT.replace(
        'sys.modules.get("greend_agent.agent")', "None"
    )

    result = run(hidden, tmp_path)

    assert result.stderr.startswith("greend: the agent is not in this Python")
    assert result.stderr.count("\n") == 1
