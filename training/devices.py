"""Device, precision and memory: where and how tensors are computed."""
import ctypes
from contextlib import suppress
from pathlib import Path

import torch

from training.distributed import LOCAL_PROCESS, PROCESSES, join_processes, of_first_process
from training.errors import UserError, check_choice

CPU_INFO = Path("/proc/cpuinfo")


def start(device, precision):
    """Choose device and precision by the names that DEVICE and PRECISION have, join the other processes, and return
    (device, precision), the same precision in all processes.
    """
    keep_memory()
    device = choose_device(device)
    join_processes(device)
    return device, of_first_process(choose_precision(precision, device))


def choose_device(name):
    """torch.device of "auto" (a GPU, one for each process, else the CPU), "cpu", "cuda", "cuda:1", "mps".

    A torch.device is returned as it is.
    """
    if name in ("auto", "cuda") and torch.cuda.is_available():
        gpus = torch.cuda.device_count()
        if LOCAL_PROCESS >= gpus:
            raise UserError("--nproc_per_node", f"one process per GPU, so at most {gpus}", "more", "lower it")
        device = torch.device("cuda", LOCAL_PROCESS)
        torch.cuda.set_device(device)
        return device
    if name == "auto":
        return torch.device("cpu")
    if isinstance(name, torch.device):                          # of a run that is resumed
        return name
    if name.startswith("cuda:") and PROCESSES > 1:
        raise UserError(f"DEVICE={name}", "a GPU for each process", "one for all of them", "DEVICE=cuda")
    try:
        float(torch.zeros(1, device=name))                      # "meta" has no numbers
        return torch.device(name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"DEVICE={name}", "a device that torch has here", str(error).split("\n")[0],
                        'DEVICE="auto" or "cpu"') from None


def choose_precision(name, device):
    """"fp32" or "bf16"; "auto" takes bf16 where training is faster in it: on GPUs of compute capability 8.0 or higher,
    and on CPUs with AMX, or AMD's with AVX-512 bf16 (on Linux, which lists what a CPU has). Intel's CPUs with AVX-512
    bf16 but without AMX are slower in bf16.
    """
    check_choice("PRECISION", name, ("auto", "fp32", "bf16"))
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    about = CPU_INFO.read_text() if device.type == "cpu" and CPU_INFO.exists() else ""
    faster = "amx_bf16" in about or "AuthenticAMD" in about and "avx512_bf16" in about
    return "bf16" if faster else "fp32"


def keep_memory():
    """Let this process keep the memory that it frees for its next step (glibc), instead of clearing new pages."""
    with suppress(OSError, AttributeError, TypeError):          # macOS, Windows, musl
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)                                     # M_MMAP_MAX: no separate pages for large tensors
        libc.mallopt(-1, -1)                                    # M_TRIM_THRESHOLD: none are given back


def autocast(device, precision):
    """The context in which a forward pass runs."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


class GroupNorm(torch.nn.GroupNorm):
    """Group norm in fp32 under autocast too: on CPUs torch's is ten times as slow in bf16 where a group has few
    channels, and on GPUs autocast chooses fp32 itself.
    """

    def forward(self, x):
        return super().forward(x.float())


def layout(architecture, device, precision):
    """The memory format of images: channels last, except for the original's 5x5 convolutions in fp32 on a CPU, which
    are slower with it.
    """
    plain = architecture == "original" and device.type == "cpu" and precision == "fp32"
    return torch.contiguous_format if plain else torch.channels_last
