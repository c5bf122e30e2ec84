"""A Hugging Face script with all that scripts do, run as it is and under the shim."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import greend_agent

from .fake_daemon import FakeDaemon

pytest.importorskip("transformers")

SHIM = Path(greend_agent.__file__).parent / "shim"

SCRIPT = """
import copy, hashlib, sys
import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(0)
config = GPT2Config(
    n_layer=2, n_embd=32, n_head=4, n_inner=128, vocab_size=64, n_positions=32, use_cache=False
)
model = GPT2LMHeadModel(config)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 5))
average = {name: p.detach().clone() for name, p in model.named_parameters()}
for step in range(int(sys.argv[1])):
    for _ in range(2):
        batch = torch.randint(64, (2, 32))
        (model(input_ids=batch, labels=batch).loss / 2).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    with torch.no_grad():
        for name, p in model.named_parameters():
            average[name].lerp_(p, 0.1)
    if step % 5 == 4:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, sys.argv[2])
        saved = torch.load(sys.argv[2])
        fresh = GPT2LMHeadModel(config)
        fresh.load_state_dict(saved["model"])
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        model.eval()
        with torch.no_grad():
            assert torch.equal(model(batch).logits, fresh.eval()(batch).logits)
        model.train()
digest = hashlib.sha256()
for tensor in (*model.state_dict().values(), *average.values()):
    digest.update(tensor.detach().numpy().tobytes())
print(digest.hexdigest())
"""


def run(folder: Path, steps: int, **environment: str) -> str:
    script = folder / "train.py"
    script.write_text(SCRIPT)
    variables = {**os.environ, "GREEND_SOCKET": str(folder / "nobody.sock"), **environment}
    words = [sys.executable, str(script), str(steps), str(folder / "checkpoint.pt")]
    done = subprocess.run(words, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_unmodified_script_ends_with_the_same_weights_unless_it_is_lowered(tmp_path):
    plain = run(tmp_path, 12)
    followed = run(tmp_path, 12, PYTHONPATH=str(SHIM), GREEND_JOB_ID="j-test")

    assert followed == plain


def test_an_unmodified_script_runs_at_a_lower_level_with_checkpoints_and_evaluation_whole(tmp_path):
    socket = tmp_path / "fake.sock"
    with FakeDaemon(socket) as daemon:
        daemon.direct(0, on_loss="hold")
        run(tmp_path, 400, PYTHONPATH=str(SHIM), GREEND_JOB_ID="j-test", GREEND_SOCKET=str(socket))
        daemon.say.put(None)
        daemon.shutdown()

    assert daemon.told("/jobs/j-test/attach")[-1]["costs"][0] < 0.6
    last = daemon.told("/jobs/j-test/progress")[-1]
    assert (last["step"], last["level"]) == (400, 0)
