"""What both trainings share: errors, constants and overrides, device and precision.

In: plain values and torch objects. Knows nothing of faces or models. Beside it: storage.py, what a run keeps on disk;
processes.py, several processes on one batch; beside.py, two trainings side by side.
"""
import ast
import ctypes
import math
import re
import signal
import sys
import time
import typing
from contextlib import contextmanager, suppress
from multiprocessing import parent_process
from pathlib import Path

import torch
from torch import distributed
from tqdm import tqdm
from training.processes import LOCAL_PROCESS, PROCESS, PROCESSES, of_first_process



# --- errors

class UserError(Exception):
    """A user's mistake: shown as one message without a traceback, exit code 1.

    where: path or constant; expected, found, remedy: one phrase each.
    """

    def __init__(self, where, expected, found, remedy):
        super().__init__(f"{where}\n  expected: {expected}\n  found:    {found}\n  remedy:   {remedy}")


def run_script(main, when_stopped=""):
    """Call main(); a UserError ends the program with its message and exit code 1, Ctrl-C or SIGTERM, which torchrun and
    Slurm send, with 130 and when_stopped.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    keep_memory()
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print(f"\nstopped. {when_stopped}", file=sys.stderr)
        sys.exit(130)
    except RuntimeError as error:
        if PROCESSES == 1 or not re.search("gloo|nccl|other processes", str(error), re.IGNORECASE):
            raise
        sys.exit(f"error: process {PROCESS} of {PROCESSES} lost the others: one of them died, or cannot be reached\n"
                 f"  found:    {error}\n  remedy:   see what that process printed. {when_stopped}")
    if distributed.is_initialized():
        distributed.destroy_process_group()


# --- constants and overrides

def constants(module):
    """The UPPER_CASE constants that a script sets itself, not those it imports, as a dict of plain values: text,
    numbers, None, tuples of numbers.
    """
    def plain(value):
        if isinstance(value, tuple):
            return all(isinstance(v, (int, float)) for v in value)
        return value is None or isinstance(value, (str, int, float))
    lines = ast.parse(Path(module.__file__).read_text()).body
    names = [target.id for line in lines if isinstance(line, (ast.Assign, ast.AnnAssign)) for target in
             (line.targets if isinstance(line, ast.Assign) else [line.target]) if isinstance(target, ast.Name)]
    return {name: vars(module)[name] for name in names if name.isupper() and plain(vars(module)[name])}


def constants_of_all(modules):
    """The constants of scripts: prefix -> dict, of modules: prefix -> script, e.g. {"": run, "vae": metric_vae.run}.

    Those that the first script has too, SEED say, are its own alone: the others' are for when they run alone.
    """
    shared = constants(modules[""])
    return {prefix: {name: value for name, value in constants(module).items() if not prefix or name not in shared}
            for prefix, module in modules.items()}


@contextmanager
def changed_constants(module, **values):
    """Within it constants of a script have these values, or what is set there; after it all have their own again."""
    own = constants(module)
    vars(module).update(values)
    try:
        yield
    finally:
        vars(module).update(own)


def override(arguments, modules):
    """Set constants from NAME=VALUE arguments, for this process only.

    modules: prefix -> script, e.g. {"": run, "vae": metric_vae.run} for SEED=1 vae.BETA=0.
    Raises UserError for a name that is not there or a value of another type.
    """
    names = {f"{prefix}.{name}" if prefix else name: (modules[prefix], name)
             for prefix, known in constants_of_all(modules).items() for name in known}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or name not in names:
            raise UserError(f"argument {argument}", "NAME=VALUE with one of the names there are",
                            f"unknown name {name!r}", f"names: {', '.join(names)}")
        module, constant = names[name]
        setattr(module, constant, _parse(argument, text, vars(module)[constant], module, constant))


def _parse(argument, text, default, module, constant):
    """The value of text, with the type of the constant: its annotation, or else that of its default."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    annotation = typing.get_type_hints(module).get(constant, type(default))
    accepted = typing.get_args(annotation) or (annotation,)
    if tuple in accepted and type(value) in (int, float):       # BETA=0 for BETA=(0.0, 0.0)
        value = (float(value),) * 2
    if float in accepted and (type(value) is int or value == "inf"):
        value = float(value)
    if str in accepted and type(value) not in accepted:
        value = text                                            # DATA=7 may be a folder named 7
    if isinstance(value, tuple):                                # every schedule is a pair: first and last step
        right = len(value) == 2 and all(type(v) in (int, float) for v in value)
        value = tuple(map(float, value)) if right else None
    if type(value) not in accepted:
        raise UserError(f"argument {argument}", f"a value like {default!r}", text,
                        f"write {constant}=VALUE with the type that it has at the head of {module.__file__}")
    return value


def check_choice(constant, value, choices):
    """Raise UserError unless value is one of choices."""
    if value not in choices:
        raise UserError(constant, "one of " + ", ".join(map(str, choices)), repr(value), "set it to one of these")


def check_at_least(least, **values):
    """Raise UserError for a constant that is below least."""
    for constant, value in values.items():
        if value < least:
            raise UserError(constant, f"at least {least}", value, "set it higher")


def check_schedules(**values):
    """Raise UserError for a schedule that is not a pair of numbers of at least 0."""
    for constant, value in values.items():
        pair = isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, (int, float)) for v in value)
        if not pair or not min(value) >= 0:
            raise UserError(constant, "two numbers of at least 0, of the first and of the last step", repr(value),
                            f"{constant} = (1.0, 1.0), say")


def check_batch(batch, count, where):
    """Raise UserError where there are fewer training faces than a batch holds."""
    if count < batch:
        raise UserError(where, f"at least BATCH={batch} training faces", count, "add faces or lower BATCH")


# --- device and precision

def choose_device(name):
    """torch.device of "auto" (a GPU, each process its own, else the processor), "cpu", "cuda", "cuda:1", "mps"."""
    if name in ("auto", "cuda") and torch.cuda.is_available():
        device = torch.device("cuda", LOCAL_PROCESS % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device
    if name == "auto":
        return torch.device("cpu")
    try:
        torch.empty(1, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"DEVICE={name}", "a device that torch has here", str(error).split("\n")[0],
                        'DEVICE="auto" or "cpu"') from None


def choose_precision(name, device):
    """"fp32" or "bf16"; "auto" takes bf16 on GPUs that have it, and where a matrix product on the processor is seen to
    be faster in it.
    """
    check_choice("PRECISION", name, ("auto", "fp32", "bf16"))
    if name != "auto":
        return name
    if device.type != "cpu":
        has_it = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        return "bf16" if has_it else "fp32"
    faster = _matmul_seconds(torch.bfloat16) < 0.7 * _matmul_seconds(torch.float32)
    return of_first_process("bf16" if faster else "fp32")


def _matmul_seconds(dtype, size=256):
    """The best of three times of a (size, size) matrix product on the processor."""
    a = torch.ones(size, size, dtype=dtype)
    a @ a
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def keep_memory():
    """Let this process keep what it frees for its next step (glibc), which else gets new pages, each cleared first: so
    training is 7 to 13 % faster on a processor.
    """
    with suppress(OSError, AttributeError, TypeError):          # macOS, Windows, musl
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)                                     # M_MMAP_MAX: no pages of its own for a large tensor
        libc.mallopt(-1, -1)                                    # M_TRIM_THRESHOLD: none go back


def autocast(device, precision):
    """The context in which a forward pass runs."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def layout(architecture, device, precision):
    """The order of images in memory: channels last, which trains the light VAE 5 to 10 % faster and is what GPUs and
    bf16 want, but the original's 5x5 convolutions 9 % slower in fp32 on a processor.
    """
    plain = architecture == "original" and device.type == "cpu" and precision == "fp32"
    return torch.contiguous_format if plain else torch.channels_last


def least_batch(model):
    """The fewest faces of a training batch. Batch norm has no variance of a single face's vector or pixel: 4 a process
    leave each two where every other face is edited.
    """
    norms = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)
    return 4 * PROCESSES if any(isinstance(module, norms) for module in model.modules()) else 1


# --- epochs

def epochs_for(steps, steps_of_epoch):
    """How many whole epochs, at least one, come nearest to this many steps."""
    return max(1, round(steps / steps_of_epoch))


def epochs(name, done, count):
    """The epochs that are left, from 0, under one progress bar; quiet where the output is not a terminal, and in all
    processes but the first.
    """
    quiet = PROCESS > 0 or parent_process() is not None
    return tqdm(range(done, count), name, count, initial=done, disable=True if quiet else None, unit="epoch")


def scheduled(schedule, progress):
    """The value of a (first, last) schedule, linear between, at a progress from 0, the first step, to 1, the last."""
    first, last = schedule
    return first + (last - first) * progress


def check_finite(values, stage, epoch, checkpoint):
    """Raise UserError where a loss is not finite; the checkpoint of the epoch before is kept."""
    bad = {name: value for name, value in values.items() if value is not None and not math.isfinite(value)}
    if bad:
        kept = f"{checkpoint} keeps epoch {epoch - 1}" if Path(checkpoint).exists() else "nothing was saved yet"
        raise UserError(f"{stage}, epoch {epoch}", "finite losses", bad,
                        f"lower LEARNING_RATE or the weight of that term, or set PRECISION=fp32 ({kept})")
