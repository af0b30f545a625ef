"""Sums over processes that torchrun starts."""
import os
import subprocess
import sys
from pathlib import Path

import torch

from training import distributed

SCRIPT = """
import torch
from training import distributed
distributed.join_processes(torch.device("cpu"))
one = distributed.PROCESS + 1.
for size in (1, 7, 100_000):
    x = torch.arange(size, dtype=torch.float32)
    assert torch.equal(distributed.add_up(x * one), 6 * x), size

x = (torch.arange(7.)[:, None] * torch.ones(2))[distributed.own_part(7)].requires_grad_()
whole = distributed.gather(x, 7)
assert torch.equal(whole.detach(), torch.arange(7.)[:, None] * torch.ones(2))
(whole * torch.arange(7.)[:, None] * one).sum().backward()
assert torch.equal(x.grad[:, 0], 6 * torch.arange(7.)[distributed.own_part(7)])

torch.manual_seed(0)
model = torch.nn.Conv2d(3, 5, 4).to(memory_format=torch.channels_last)
model.unused = torch.nn.Parameter(torch.ones(2))
x = torch.randn(7, 3, 8, 8)
model(x).square().sum().backward()
wanted = [torch.zeros(2) if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()]
model.zero_grad()
model(x[distributed.own_part(7)]).square().sum().backward()
distributed.add_up_gradients(model)
for parameter, gradient in zip(model.parameters(), wanted):
    assert torch.allclose(parameter.grad, gradient, rtol=1e-4) and parameter.grad.stride() == parameter.stride()
torch.distributed.destroy_process_group()
"""


def test_three_processes_add_up_gather_and_sum_gradients(tmp_path):
    (tmp_path / "sums.py").write_text(SCRIPT)
    root = str(Path(distributed.__file__).parents[1])
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=3",
                           tmp_path / "sums.py"], capture_output=True, text=True, timeout=200,
                          env=os.environ | {"PYTHONPATH": root})
    assert done.returncode == 0, done.stderr


def test_without_torchrun_a_sum_is_the_tensor_itself():
    x = torch.rand(3, requires_grad=True)
    assert torch.equal(distributed.add_up(x), x) and not distributed.add_up(x).requires_grad
    assert distributed.gather(x, 3) is x
    assert list(range(5))[distributed.own_part(5)] == [0, 1, 2, 3, 4]


def test_the_parts_of_processes_make_up_every_batch(monkeypatch):
    monkeypatch.setattr(distributed, "PROCESSES", 3)
    for count in range(8):
        faces = list(range(count))
        parts = []
        for process in range(3):
            monkeypatch.setattr(distributed, "PROCESS", process)
            parts.append(faces[distributed.own_part(count)])
        assert sum(parts, []) == faces
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
