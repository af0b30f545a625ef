"""Several processes on one batch, as torchrun starts them; without torchrun all of this does nothing.

Each process draws the same batch with the same generator, and computes its own part of it. The parts of latents and of
embeddings are gathered, so that the regulariser sees all pairs; gradients are summed. Only the first one writes.
"""
import os
import sys
import tempfile
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path

import torch
from torch import distributed

TORCHRUN = "TORCHELASTIC_RUN_ID" in os.environ
PROCESSES = int(os.environ["WORLD_SIZE"]) if TORCHRUN else 1        # how many there are
PROCESS = int(os.environ["RANK"]) if TORCHRUN else 0                # which one this is
ONE_MACHINE = TORCHRUN and int(os.environ["LOCAL_WORLD_SIZE"]) == PROCESSES
LOCAL_PROCESS = int(os.environ["LOCAL_RANK"]) if TORCHRUN else 0    # which one on this machine

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


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context, x, count):
        context.count = count
        whole = x.new_zeros(count, *x.shape[1:])
        whole[own_part(count)] = x
        distributed.all_reduce(whole)
        return whole

    @staticmethod
    def backward(context, gradient):
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(gradient)
        return gradient[own_part(context.count)], None


def gather(x, count):
    """The own parts (b, ...) of all processes as one batch (count, ...).

    Gradients flow back to the process that each face came from, summed over the processes: so each should add its
    share of the loss, not the whole.
    """
    return _Gather.apply(x, count) if PROCESSES > 1 else x


@torch.no_grad()
def add_up(x):
    """The sum of a tensor over the processes, without gradient."""
    x = x.detach()
    if PROCESSES > 1:
        x = x.clone()
        distributed.all_reduce(x)
    return x


@torch.no_grad()
def average_buffers(model):
    """Average batch norm's means and variances over the processes, each of which saw its own parts alone."""
    if PROCESSES > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.copy_(add_up(buffer) / PROCESSES)


@torch.no_grad()
def add_up_gradients(model):
    """Sum the gradients of a model's parameters over the processes, in one message.

    Of processors of one machine by memory that they share: 6 ms for the VAE's 11 MB, where gloo takes 15.
    """
    if PROCESSES == 1:
        return
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sizes = [parameter.numel() for parameter in parameters]
    flat = [parameter.grad.as_strided((size,), (1,)) for parameter, size in zip(parameters, sizes)]
    if ONE_MACHINE and flat[0].device.type == "cpu":
        shared, part = shared_memory(sum(sizes)), own_part(sum(sizes))
        torch.cat(flat, out=shared[PROCESS])
        distributed.barrier()
        summed = shared[PROCESSES]
        torch.sum(shared[:PROCESSES, part], 0, out=summed[part])
        distributed.barrier()
    else:
        summed = torch.cat(flat)
        distributed.all_reduce(summed)
    for parameter, gradient in zip(parameters, summed.split(sizes)):
        parameter.grad = gradient.as_strided(parameter.shape, parameter.grad.stride(), gradient.storage_offset())


@lru_cache(1)
def shared_memory(count):
    """Zeros float32 (PROCESSES + 1, count) that all processes of this machine see: a row each, and one for the sum."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(of_first_process(folder)) / "gradients"
        if PROCESS == 0:
            path.write_bytes(bytes(4 * (PROCESSES + 1) * count))
        distributed.barrier()
        memory = torch.from_file(str(path), shared=True, size=(PROCESSES + 1) * count).view(PROCESSES + 1, count)
        distributed.barrier()                                   # all have it: its name can go
    return memory
