"""Several processes on one batch, as torchrun starts them; without torchrun these functions do nothing.

Each process draws the same batch with the same generator, and computes its own part of it. The parts of latents and
embeddings are gathered, so that the regulariser sees all pairs; gradients are summed. Only the first process writes.
"""
import os
import sys
from contextlib import contextmanager

import torch
from torch import distributed

TORCHRUN = "TORCHELASTIC_RUN_ID" in os.environ
PROCESSES = int(os.environ["WORLD_SIZE"]) if TORCHRUN else 1        # how many there are
PROCESS = int(os.environ["RANK"]) if TORCHRUN else 0                # which one this is
LOCAL_PROCESS = int(os.environ["LOCAL_RANK"]) if TORCHRUN else 0    # which one on this machine


def join_processes(device):
    """Join the processes that torchrun started, if it did; only the first one prints."""
    if PROCESSES > 1:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        if PROCESS > 0:
            sys.stdout = open(os.devnull, "w")


@contextmanager
def first_process_first():
    """The first process runs the block before the others do, so that they find what it wrote."""
    if PROCESSES > 1 and PROCESS > 0:
        distributed.barrier()
    yield
    if PROCESSES > 1 and PROCESS == 0:
        distributed.barrier()


def of_first_process(value):
    """The first process's value, for example a path, on all of them."""
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
        return add_up(whole)

    @staticmethod
    def backward(context, gradient):
        return add_up(gradient)[own_part(context.count)], None


def gather(x, count):
    """The own parts (b, ...) of all processes as one batch (count, ...).

    Gradients flow back to the process that computed each face, summed over the processes: so each process adds its
    share of the loss, not the whole.
    """
    return _Gather.apply(x, count) if PROCESSES > 1 else x


@torch.no_grad()
def add_up(x):
    """The sum of a tensor over the processes, without gradient."""
    if PROCESSES == 1:
        return x.detach()
    x = x.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(x)
    return x


@torch.no_grad()
def average_buffers(model):
    """Average batch norm's means and variances over the processes, each of which saw only its own parts."""
    if PROCESSES > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.copy_(add_up(buffer) / PROCESSES)


@torch.no_grad()
def add_up_gradients(model):
    """Sum the gradients of a model's parameters over the processes, in one message."""
    if PROCESSES > 1:
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in parameters:
            if parameter.grad is None:                          # of a user's network: nothing depends on it
                parameter.grad = torch.zeros_like(parameter)
        whole = add_up(torch.cat([parameter.grad.flatten() for parameter in parameters]))
        for parameter, gradient in zip(parameters, whole.split([parameter.numel() for parameter in parameters])):
            parameter.grad.copy_(gradient.view_as(parameter))
