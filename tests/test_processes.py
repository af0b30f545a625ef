"""Sums over processes, in memory that they share and by messages."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training import processes

SCRIPT = """
import sys, torch
from training import processes
processes.SHARE_MEMORY = processes.SHARE_MEMORY and sys.argv[1] == "shared"
processes.join_processes(torch.device("cpu"))
one = processes.PROCESS + 1.
for size in (1, 7, 100_000, 10, 300_000):                       # the third and the last make the memory grow
    x = torch.arange(size, dtype=torch.float32)
    assert torch.equal(processes.add_up(x * one), 6 * x), size
kept = processes.add_up(torch.ones(5) * one)
processes.add_up(torch.zeros(5))
assert torch.equal(kept, torch.full((5,), 6.))                  # no later sum changes it
assert (processes._shared_memory.size > 0) == processes.SHARE_MEMORY

x = (torch.arange(7.)[:, None] * torch.ones(2))[processes.own_part(7)].requires_grad_()
whole = processes.gather(x, 7)
assert torch.equal(whole.detach(), torch.arange(7.)[:, None] * torch.ones(2))
(whole * torch.arange(7.)[:, None] * one).sum().backward()
assert torch.equal(x.grad[:, 0], 6 * torch.arange(7.)[processes.own_part(7)])

torch.manual_seed(0)
model = torch.nn.Conv2d(3, 5, 4).to(memory_format=torch.channels_last)
x = torch.randn(7, 3, 8, 8)
model(x).square().sum().backward()
wanted = [parameter.grad.clone() for parameter in model.parameters()]
model.zero_grad()
model(x[processes.own_part(7)]).square().sum().backward()
processes.add_up_gradients(model)
for parameter, gradient in zip(model.parameters(), wanted):
    assert torch.allclose(parameter.grad, gradient, rtol=1e-4) and parameter.grad.stride() == parameter.stride()
norm = torch.cat([gradient.flatten() for gradient in wanted]).norm()
torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1 * float(norm))    # in place: they are of this process alone
for parameter, gradient in zip(model.parameters(), wanted):
    assert torch.allclose(parameter.grad, 0.1 * gradient, rtol=1e-4) and parameter.grad.stride() == parameter.stride()
torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize("how", ["shared", "sent"])
def test_three_processes_add_up_gather_and_sum_gradients(how, tmp_path):
    (tmp_path / "sums.py").write_text(SCRIPT)
    root = str(Path(processes.__file__).parents[1])
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=3",
                           tmp_path / "sums.py", how], capture_output=True, text=True, timeout=200,
                          env=os.environ | {"PYTHONPATH": root})
    assert done.returncode == 0, done.stderr


def test_without_torchrun_a_sum_is_the_tensor_itself():
    x = torch.rand(3, requires_grad=True)
    assert torch.equal(processes.add_up(x), x) and not processes.add_up(x).requires_grad
    assert processes.gather(x, 3) is x
    assert list(range(5))[processes.own_part(5)] == [0, 1, 2, 3, 4]
