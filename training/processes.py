"""Several processes on one batch, as torchrun starts them; without torchrun all of this does nothing.

Each process draws the same batch with the same generator, and computes its own part of it. The parts of latents and of
embeddings are gathered, so that the regulariser sees all pairs; gradients are summed. Only the first one writes.
"""
import os
import platform
import sys
import tempfile
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import distributed

TORCHRUN = "TORCHELASTIC_RUN_ID" in os.environ
PROCESSES = int(os.environ["WORLD_SIZE"]) if TORCHRUN else 1        # how many there are
PROCESS = int(os.environ["RANK"]) if TORCHRUN else 0                # which one this is
LOCAL_PROCESS = int(os.environ["LOCAL_RANK"]) if TORCHRUN else 0    # which one on this machine
SHARE_MEMORY = (TORCHRUN and int(os.environ["LOCAL_WORLD_SIZE"]) == PROCESSES       # all of them are on this machine,
                and platform.machine() in ("x86_64", "AMD64"))      # where others see what is written in its order

MESSAGE = 2 ** 16               # numbers: the shared memory has room for as many at least,
LARGEST = 2 ** 24               # and for as many at most; longer messages are sent
AWAKE = 0.01                    # seconds that a process waits awake for the others
NAP = 1e-4                      # seconds that it then sleeps between two looks
PATIENCE = 1800                 # seconds after which it gives the others up, as torch does

lock = nullcontext()            # held while the log is read and written anew; beside.py sets it for two processes


def join_processes(device):
    """Join the processes that torchrun started, if it did; all but the first fall silent."""
    if PROCESSES > 1:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        if PROCESS > 0:
            sys.stdout = open(os.devnull, "w")


@contextmanager
def first_process_first():
    """The first process runs the block before the others do, which find what it wrote."""
    if PROCESSES > 1 and PROCESS > 0:
        distributed.barrier()
    yield
    if PROCESSES > 1 and PROCESS == 0:
        distributed.barrier()


def of_first_process(value):
    """The first process's value, a path say, on all of them."""
    values = [value]
    if PROCESSES > 1:
        distributed.broadcast_object_list(values)
    return values[0]


def own_part(count):
    """The slice of a batch of count faces that this process computes; may be empty."""
    return slice(count * PROCESS // PROCESSES, count * (PROCESS + 1) // PROCESSES)


class _SharedMemory:
    """Sums over the processes of one machine's processor, in memory that all of them see: a row each, one for the sum.

    gloo sends messages, and sleeps until they come: with it two processes took 1.2 times as long as one on the same
    cores, and so 1.05 times.
    """

    def __init__(self):
        self.size = 0

    def resize(self, size):
        self.size = max(size, MESSAGE)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            path = Path(of_first_process(folder)) / "rows"
            if PROCESS == 0:
                path.write_bytes(bytes(64 * PROCESSES + 4 * (PROCESSES + 1) * self.size))
            distributed.barrier()
            visits, rows = np.split(np.memmap(path, np.uint8, "r+"), [64 * PROCESSES])
            distributed.barrier()                               # all have it: its name can go
        self.visits = visits.view(np.int64)[::8]                # how often each has met the others, a cache line each
        self.rows = torch.from_numpy(rows.view(np.float32)).view(PROCESSES + 1, self.size)

    def meet(self):
        """Wait for the others: awake at first, then in short naps."""
        self.visits[PROCESS] += 1
        start = time.perf_counter()
        while (self.visits < self.visits[PROCESS]).any():
            waited = time.perf_counter() - start
            if waited > PATIENCE:
                raise RuntimeError(f"the other processes did not come within {PATIENCE} s")
            time.sleep(0 if waited < AWAKE else NAP)

    def sum(self, parts, size):
        """The sum over the processes of these vectors of size numbers in all; no later sum changes it."""
        if size > self.size:
            self.resize(size)
        rows, part = self.rows[:, :size], own_part(size)
        torch.cat(parts, out=rows[PROCESS])
        self.meet()
        torch.add(rows[0, part], rows[1, part], out=rows[PROCESSES, part])
        for row in rows[2:PROCESSES, part]:
            rows[PROCESSES, part] += row
        self.meet()
        return rows[PROCESSES].clone()


_shared_memory = _SharedMemory()


def _sum(parts):
    """The sum over the processes of float32 vectors, one behind the other."""
    size = sum(map(len, parts))
    if SHARE_MEMORY and parts[0].device.type == "cpu" and size <= LARGEST:
        return _shared_memory.sum(parts, size)
    whole = torch.cat(parts)
    distributed.all_reduce(whole)
    return whole


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context, x, count):
        context.count = count
        whole = x.new_zeros(count, *x.shape[1:])
        whole[own_part(count)] = x
        return add_up(whole)

    @staticmethod
    def backward(context, gradient):
        return add_up(gradient)[own_part(context.count)], None


def gather(x, count):
    """The own parts (b, ...) of all processes as one batch (count, ...).

    Gradients flow back to the process that each face came from, summed over the processes: so each should add its
    share of the loss, not the whole.
    """
    return _Gather.apply(x, count) if PROCESSES > 1 else x


@torch.no_grad()
def add_up(x):
    """The sum of a float32 tensor over the processes, without gradient."""
    return _sum([x.flatten()]).view(x.shape) if PROCESSES > 1 else x.detach()


@torch.no_grad()
def average_buffers(model):
    """Average batch norm's means and variances over the processes, each of which saw its own parts alone."""
    if PROCESSES > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.copy_(add_up(buffer) / PROCESSES)


@torch.no_grad()
def add_up_gradients(model):
    """Sum the gradients of a model's parameters over the processes, in one message."""
    if PROCESSES > 1:
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        sizes = [parameter.numel() for parameter in parameters]
        parts = [parameter.grad.as_strided((size,), (1,)) for parameter, size in zip(parameters, sizes)]
        for parameter, gradient in zip(parameters, _sum(parts).split(sizes)):
            parameter.grad = gradient.as_strided(parameter.shape, parameter.grad.stride(), gradient.storage_offset())
