"""What both trainings share: errors, constants and overrides, device and precision, run folders, checkpoints.

In: plain values and torch objects. Out: files in a run folder. Knows nothing of faces or models.
"""
import ast
import ctypes
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import typing
from contextlib import contextmanager, suppress
from importlib.metadata import version
from multiprocessing import parent_process
from pathlib import Path

import torch
from torch import distributed
from tqdm import tqdm

try:
    import fcntl
except ImportError:                                             # Windows
    fcntl = None

import processes
from processes import LOCAL_PROCESS, PROCESS, PROCESSES, of_first_process

RUNS = Path(__file__).parent / "experiments"


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

    modules: prefix -> module, e.g. {"": run, "vae": metric_vae.run} for SEED=1 vae.BETA=0.
    Raises UserError for a name that is not there or a value of another type.
    """
    for argument in arguments:
        name, equals, text = argument.partition("=")
        prefix, _, constant = name.rpartition(".")
        known = constants(modules[prefix]) if prefix in modules else {}
        if not equals or constant not in known:
            names = ", ".join(f"{p}.{n}" if p else n for p, m in modules.items() for n in constants(m))
            raise UserError(f"argument {argument}", "NAME=VALUE with one of the names there are",
                            f"unknown name {name!r}", f"names: {names}")
        setattr(modules[prefix], constant, _parse(argument, text, known[constant], modules[prefix], constant))


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
    if isinstance(value, tuple):                                # every schedule is a pair: first and last epoch
        right = len(value) == 2 and all(type(v) in (int, float) for v in value)
        value = tuple(map(float, value)) if right else None
    if type(value) not in accepted:
        raise UserError(f"argument {argument}", f"a value like {default!r}", text,
                        f"write {constant}=VALUE with the type that it has at the head of {module.__file__}")
    return value


def stored_constants(modules):
    """The constants of all scripts as settings.json keeps them: {"run": ..., "vae": ...}."""
    return {prefix or "run": constants(module) for prefix, module in modules.items()}


def restore_constants(folder, modules, arguments=()):
    """Set the constants to those of a run folder; raises UserError where arguments beside RESUME would change them."""
    more = [argument for argument in arguments if not argument.startswith("RESUME=")]
    if more:
        raise UserError(" ".join(arguments), "RESUME alone: a resumed run keeps its settings", " ".join(more),
                        "leave it out, or start a new run")
    settings = read_json(folder / "settings.json")
    for prefix, module in modules.items():
        for name, value in settings[prefix or "run"].items():
            if name != "RESUME":
                setattr(module, name, tuple(value) if isinstance(value, list) else value)


def check_same_data(folder, about):
    """Raise UserError unless the run folder's data has the fingerprint of about."""
    of_run = read_json(folder / "settings.json")["data"]
    if of_run["fingerprint"] != about["fingerprint"]:
        raise UserError(folder, f"the faces of that run: {of_run}", about, "restore the data, or start a new run")


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
            raise UserError(constant, "two numbers of at least 0, of the first and of the last epoch", repr(value),
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


def stored_device(folder, name):
    """The device, of the kind on which an unfinished run was begun, and the precision that it had.

    name: its DEVICE. Raises UserError where there is none of that kind: another one draws other random numbers.
    """
    settings = read_json(folder / "settings.json")
    kind = torch.device(settings["device"]).type
    device = choose_device("cpu" if kind == "cpu" else name)
    if kind != device.type:
        raise UserError(folder, f"a device as that on which it was begun, {kind}", device.type,
                        "resume it where there is one, or start a new run")
    return device, settings["precision"]


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


def epochs(name, done, count):
    """The epochs that are left, from 0, under one progress bar; quiet where the output is not a terminal, and in all
    processes but the first.
    """
    quiet = PROCESS > 0 or parent_process() is not None
    return tqdm(range(done, count), name, count, initial=done, disable=True if quiet else None, unit="epoch")


def scheduled(schedule, epoch, epochs, power=1):
    """The value at an epoch (from 0) of a (first, last) schedule that is linear between; with power 2 slow at first."""
    first, last = schedule
    return first + (last - first) * (epoch / max(epochs - 1, 1)) ** power


# --- files

def write_atomically(path, write):
    """Write a file beside its place and rename it: write(file) gets a binary file. Of several processes the first does.

    Raises UserError where the disk is full or the folder may not be written to; the old file stays.
    """
    if PROCESS > 0:
        return
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            write(file)
        os.replace(beside, path)
    except BaseException as error:
        with suppress(OSError):                                 # where nothing may be written, there is nothing left
            beside.unlink()
        cause = error.__context__ if isinstance(error, RuntimeError) else error     # torch.save wraps a full disk's
        if isinstance(cause, OSError):
            raise UserError(path, "a file that can be written", cause,
                            "free some disk space or choose a folder you may write to") from None
        raise


def make_folder(path):
    """Make a folder and those above it; one that is there stays. Raises UserError where it may not be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(path, "a folder that can be made", error,
                        "free some disk space or choose a folder you may write to") from None


def write_text(path, text):
    """Write a text, atomically."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path, value):
    """Write a value as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path):
    """Read JSON; raises UserError where the file is missing or damaged."""
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UserError(path, "a JSON file of a run", error, "restore the file, or start a new run") from None


def save_checkpoint(path, model, optimizer, generator, epoch, **more):
    """Write weights, optimiser, finished epochs and RNG state; more: further tensors or plain values."""
    state = dict(model=model.state_dict(), optimizer=optimizer.state_dict(), rng=generator.get_state(), epoch=epoch)
    write_atomically(path, lambda file: torch.save({**state, **more}, file))


def load_checkpoint(path, device="cpu"):
    """Read a checkpoint's dict without pickle's code; raises UserError where it is missing or damaged."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:                                  # torch raises half a dozen kinds here
        raise UserError(path, "a checkpoint of this program", str(error).split("\n")[0],
                        "restore the file, or start a new run") from None


def resume(path, model, optimizer, generator):
    """Load a checkpoint where there is one; returns (number of epochs that are done, its dict)."""
    if not Path(path).exists():
        return 0, {}
    state = load_checkpoint(path, next(model.parameters()).device)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    generator.set_state(state["rng"].cpu())
    return state["epoch"], state


# --- run folders

def new_run_folder(runs=RUNS):
    """Make and return the next experiments/N; two programs never get the same one, the processes of one do."""
    if PROCESS > 0:
        return of_first_process(None)
    make_folder(runs)
    number = max((int(p.name) for p in runs.iterdir() if p.name.isdigit()), default=-1) + 1
    while True:
        try:
            (runs / str(number)).mkdir()
            return of_first_process(runs / str(number))
        except FileExistsError:
            number += 1
        except OSError as error:
            raise UserError(runs, "a folder that can be written", error, "choose a folder you may write to") from None


def hold(folder):
    """Hold a run folder until this program ends; raises UserError where another program does.

    Windows, and file systems without locks, let both go on.
    """
    if fcntl is None or PROCESS > 0:
        return
    try:
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(folder, "a run that no program works on", "another program trains it",
                        "wait for it or stop it; RESUME=N goes on with another run") from None
    except OSError:
        pass


def find_run(which, finished, constants_of="data", runs=RUNS):
    """The folder of run `which`: a number, or "last", the newest that is finished (True) or unfinished (False).

    constants_of: runs count whose settings hold the constants of this script: "run", "classifier" or "vae"; by default
    all count. Raises UserError where there is none.
    """
    state = "finished" if finished else "unfinished"
    found = []
    for path in runs.glob("*/settings.json"):
        settings = read_json(path) if path.parent.name.isdigit() else {}
        if settings.get("finished") == finished and constants_of in settings:
            found.append(int(path.parent.name))
    found.sort()
    if which == "last" and found:
        return runs / str(found[-1])
    if which in found:
        return runs / str(which)
    raise UserError(runs, f"{state} run {which}", f"{state} runs: {found or 'none'}",
                    "python run.py starts one, RESUME=N goes on with an unfinished one")


def start_settings(folder, **settings):
    """Write settings.json: what is given, with versions, git commit and the command."""
    names = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "matplotlib")
    settings = dict(finished=False, command=sys.argv, started=time.strftime("%Y-%m-%d %H:%M:%S"), **settings,
                    versions=dict(python=sys.version.split()[0], **{name: version(name) for name in names}),
                    git_commit=git_commit(), threads=torch.get_num_threads(), processes=PROCESSES)
    write_json(folder / "settings.json", settings)


def finish_settings(folder):
    """Mark a run as finished."""
    if PROCESS == 0:
        write_json(folder / "settings.json", {**read_json(folder / "settings.json"), "finished": True})


def git_commit():
    """The commit of this checkout, with "+" where files differ from it, or None outside git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout
        return commit + "+" * bool(changed.strip())
    except (OSError, subprocess.CalledProcessError):
        return None


# --- the log

def read_log(folder, stage=None):
    """The lines of log.jsonl as dicts, of one stage or of all."""
    path = folder / "log.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if stage in (None, line["stage"])]


def write_log(folder, stage, epoch, **values):
    """Set the line of one stage and epoch (from 1); drops later epochs of that stage, which a resumed run repeats."""
    if PROCESS > 0:
        return
    for value in values.values():
        assert value is None or isinstance(value, (int, float, list)), value
    with processes.lock:
        lines = [line for line in read_log(folder) if line["stage"] != stage or line["epoch"] < epoch]
        lines.append(dict(stage=stage, epoch=epoch, **values))
        write_text(folder / "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def check_finite(values, stage, epoch, checkpoint):
    """Raise UserError where a loss is not finite; the checkpoint of the epoch before is kept."""
    bad = {name: value for name, value in values.items() if value is not None and not math.isfinite(value)}
    if bad:
        kept = f"{checkpoint} keeps epoch {epoch - 1}" if Path(checkpoint).exists() else "nothing was saved yet"
        raise UserError(f"{stage}, epoch {epoch}", "finite losses", bad,
                        f"lower LEARNING_RATE or the weight of that term, or set PRECISION=fp32 ({kept})")
