"""A user's mistake, how a script ends, and the checks of settings."""
import os
import re
import sys

import torch
from torch import distributed

from training.distributed import PROCESS, PROCESSES
from training.stopping import listen

LARGEST = 1e30          # weight of a term: float32 ends at 3e38
MANY = 10 ** 9          # most steps, faces, ...
LARGEST_SEED = 2 ** 32 - 1      # that numpy takes


class UserError(Exception):
    """A user's mistake: shown as one message without a traceback, exit code 1.

    where: path or constant; expected, found, remedy: one phrase each.
    """

    def __init__(self, where, expected, found, remedy):
        super().__init__(where, expected, found, remedy)

    def __str__(self):
        return "{}\n  expected: {}\n  found:    {}\n  remedy:   {}".format(*self.args)


def described(error):
    """The type of an exception and the first line of its message."""
    return f"{type(error).__name__}: {error}".split("\n")[0].removesuffix(": ")


class Output:
    """A stream whose reader may go away (as of: | head -1), or whose disk may be full: what is printed is lost then,
    and the program goes on.
    """

    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def _try(self, function, *arguments):
        try:
            return function(*arguments)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def write(self, text):
        self._try(self.stream.write, text)
        return len(text)

    def flush(self):
        self._try(self.stream.flush)


def open_closed_streams():
    """Open closed standard streams, as by >&-, on os.devnull: else the next file opened would get what is printed."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)                      # gets the lowest number that is free: this one
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))


def first_few(values, count=8):
    """The first few of values as text, for a message."""
    return ", ".join(map(str, values[:count])) + (", ..." if len(values) > count else "")


def run_script(main, when_stopped=""):
    """Call main(). A UserError ends the program with its message and exit code 1; Ctrl-C or SIGTERM with exit code 130
    and the text when_stopped.
    """
    listen(at_once=False, remark=when_stopped)
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):                     # names of files that the terminal has no letters for
        stream.reconfigure(errors="backslashreplace", line_buffering=True)
    sys.stdout, sys.stderr = Output(sys.stdout), Output(sys.stderr)
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            found = str(error).splitlines() or [type(error).__name__]
            sys.exit("error: " + str(UserError("memory", "enough of it", found[0],
                                               f"smaller batches, faces or SAMPLE, or another DEVICE. {when_stopped}")))
        lost = re.search("gloo|nccl|connection (closed|reset|refused)", str(error), re.IGNORECASE)
        if PROCESSES == 1 or not lost:
            raise
        sys.exit(f"error: process {PROCESS} of {PROCESSES} lost the others: one of them died, or cannot be reached\n"
                 f"  found:    {error}\n  remedy:   see what that process printed. {when_stopped}")
    listen()
    if distributed.is_initialized():
        distributed.destroy_process_group()


def is_out_of_memory(error):
    """Whether an exception says that the memory does not suffice; torch has no class of its own for a CPU's."""
    said = re.search("can't allocate memory|bad_alloc|cannot allocate memory", str(error), re.IGNORECASE)
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or said is not None


# --- checks of settings

def check_choice(constant, value, choices):
    """Raise UserError unless value is one of choices."""
    if value not in choices:
        raise UserError(constant, "one of " + ", ".join(map(str, choices)), repr(value), "set it to one of these")


def check_at_least(least, settings, *constants):
    """Raise UserError for one of these constants of the settings that is below least, or above MANY."""
    for constant in constants:
        value = getattr(settings, constant)
        if not least <= value <= MANY:
            raise UserError(constant, f"at least {least}" if value < least else f"at most {MANY}", value,
                            f"set it {'higher' if value < least else 'lower'}")


def check_seeds(settings, *constants):
    """Raise UserError for one of these constants of the settings that is no seed."""
    check_between(0, LARGEST_SEED, settings, *constants)


def check_between(least, most, settings, *constants):
    """Raise UserError for one of these constants of the settings that is not a number from least to most."""
    for constant in constants:
        value = getattr(settings, constant)
        if not least <= value <= most:
            raise UserError(constant, f"a number from {least:.10g} to {most:.10g}", value, "set it to one")


def whole_numbers(constant, text, least=0):
    """The whole numbers in a text with commas between; UserError where one is none, below least or above LARGEST_SEED.
    """
    numbers = [int(part) if re.fullmatch("[0-9]{1,19}", part) else -1 for part in text.split(",")]
    if not least <= min(numbers) <= max(numbers) <= LARGEST_SEED:
        raise UserError(constant, f"whole numbers from {least} to {LARGEST_SEED} with commas between", repr(text),
                        f"for example {constant}={least},{least + 1}")
    return numbers


def check_schedules(settings, *constants, most=LARGEST):
    """Raise UserError for one of these constants of the settings that is not a pair of numbers of 0 to most."""
    for constant in constants:
        value = getattr(settings, constant)
        pair = isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, (int, float)) for v in value)
        if not pair or not (min(value) >= 0 and max(value) <= most):
            raise UserError(constant, f"two numbers of 0 to {most:g}, for the first and the last step", repr(value),
                            f"for example {constant} = (1.0, 1.0)")


def check_batch(batch, count, name, constant=None):
    """Raise UserError where there are fewer training faces than a batch holds. name: of the faces; constant: what sets
    the batch, for example "vae.BATCH", where the user has just set it.
    """
    if count < batch:
        raise UserError(f"{constant}={batch}" if constant else name, f"at least BATCH={batch} training faces", count,
                        f"add faces or lower {constant or 'BATCH'}")
