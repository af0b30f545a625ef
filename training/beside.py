"""Two trainings side by side on one processor.

Networks as small as these leave half of a processor idle: on 2 cores two of them side by side, a core each, are done in
less time than one after the other on both.
"""
import os
import signal
import sys
import threading
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context, parent_process

import numpy as np
import torch

import training
from training import processes


@contextmanager
def beside(faces, device, function, *arguments, **settings):
    """While the block runs, call function(*arguments, **settings) in a process of its own; both have half the threads.

    Yields whether that was begun: not on a GPU, with a single thread, in torchrun's processes, or where the faces are
    memory-mapped, which would be copied. The function has the constants of its script as they are set here, and
    leaves what it makes in files; after an error it leaves none, and who waits for them meets the same error.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or processes.PROCESSES > 1 or isinstance(faces.images, np.memmap):
        yield False
        return
    context = get_context("spawn")
    processes.lock = context.Lock()
    constants = training.constants(sys.modules[function.__module__])
    other = context.Process(target=_call, daemon=True, args=(
        processes.lock, threads // 2, constants, function, arguments, settings))
    other.start()
    torch.set_num_threads(threads - threads // 2)
    try:
        yield True
    except BaseException:
        other.terminate()
        raise
    finally:
        other.join()
        processes.lock = nullcontext()
        torch.set_num_threads(threads)


def _call(lock, threads, constants, function, arguments, settings):
    """What the other process does."""
    for stop in (signal.SIGINT, signal.SIGTERM):                # without a word: the first process says it
        signal.signal(stop, lambda *_: sys.exit(1))
    threading.Thread(target=_end_with_first, daemon=True).start()
    processes.lock = lock
    training.keep_memory()
    torch.set_num_threads(threads)
    function.__globals__.update(constants)
    try:
        function(*arguments, **settings)
    except training.UserError:
        sys.exit(1)


def _end_with_first():
    """End this process when the first one has died, however it did."""
    parent_process().join()
    os._exit(1)
