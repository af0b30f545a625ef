"""Runs that are killed, stopped or starved at a random moment, each resumed: they must end with the same numbers.

Each runs in a child of this process, which has imported everything already. Linux.
"""
import ctypes
import faulthandler
import multiprocessing
import os
import pty
import resource
import shutil
import signal
import sys
import time

import numpy as np
import torch
import torch._dynamo                    # noqa: F401, training imports it late, each child anew

import run
from conftest import draw_small_images
from training import storage
from training.errors import run_script
from training.log import read_log

FACES = ["DATA=faces.npz", "IMAGE_SIZE=16", "DEVICE=cpu", "PRECISION=fp32"]
SMALL = [*FACES, "classifier.STEPS=6", "vae.STEPS=9", "vae.Z_DIM=8", "vae.METRIC_DIMS=4"]
ALONE = [*FACES, "STEPS=1", "Z_DIM=8", "METRIC_DIMS=4"]        # of metric_vae.run
SECONDS = 60                    # after which a run counts as a hang
LIBC = ctypes.CDLL(None, use_errno=True)
NEW_MOUNTS, PRIVATE, REMOUNT, READ_ONLY = 0x20000, 0x44000, 32, 1      # of unshare(2) and mount(2)


def child(home, folder, main, during=lambda pid: None, seconds=SECONDS):
    """Call main() in a child, in the folder home, its runs in folder, as a script does: (exit code, what it printed,
    seconds). during(pid): is called as it runs.
    """
    def work():
        os.setsid()
        faulthandler.disable()                                  # pytest's
        torch.set_num_threads(1)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        os.chdir(home)
        storage.RUNS = folder
        try:
            run_script(main)
        except (Exception, KeyboardInterrupt):                  # as the interpreter does; multiprocessing would not
            sys.excepthook(*sys.exc_info())
            sys.exit(1)
    folder.mkdir(exist_ok=True)
    log, began = folder / "log.txt", time.perf_counter()
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    during(process.pid)
    process.join()
    return process.exitcode, log.read_text() if log.exists() else "", time.perf_counter() - began


def says_why(code, text):
    """Whether a program ended with a user's error, and without a traceback."""
    return code == 1 and "error: " in text and "remedy: " in text and "Traceback" not in text


def numbers(folder):
    """All of a run folder that must be the same, bit by bit."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".pt", ".npy", ".npz")}
    log = [{key: value for key, value in line.items() if key not in ("seconds", "images_per_second")}
           for line in read_log(folder)]
    hidden = [path.name for path in folder.glob(".*")]
    return files, sorted(map(repr, log)), storage.is_finished(folder), hidden


def write_faces(home):
    """Write the data that SMALL trains on."""
    np.savez(home / "faces.npz", images=draw_small_images(), labels=np.arange(70) % 7, identities=np.arange(70) // 7)


class Undisturbed:
    """A small run to its end in home/undisturbed: its numbers and the seconds that it takes."""

    def __init__(self, home):
        self.home = home
        write_faces(home)
        for _ in range(2):                                      # the first one warms up
            shutil.rmtree(home / "undisturbed", ignore_errors=True)
            code, text, self.seconds = child(home, home / "undisturbed", lambda: run.main(SMALL))
            assert code == 0, text
        self.numbers = numbers(home / "undisturbed" / "0")

    def problem(self, folder):
        """What is wrong once the run of a folder is resumed, or an empty text; nothing to resume is right, too."""
        settings = folder / "0" / "settings.json"
        if not settings.exists():
            return ""
        if not storage.is_finished(folder / "0"):
            code, text, _ = child(self.home, folder, lambda: run.main(["RESUME=last"]))
            if code:
                return f"RESUME ends with {code}: {text[-500:]}"
        return self.differs(folder)

    def differs(self, folder):
        """How the run in a folder differs from the undisturbed one, or an empty text."""
        names = ("files", "log.jsonl", "finished", "hidden files")
        return ", ".join(name for name, own, right in zip(names, numbers(folder / "0"), self.numbers) if own != right)


# --- faults: functions of the Undisturbed, a new folder and a random generator to a problem or an empty text

def sent(signum, right_codes):
    """The fault: a signal at a random moment. right_codes: the exit codes that it may end with."""
    def fault(undisturbed, folder, rng):
        moment = rng.uniform(0, undisturbed.seconds)

        def send(pid):
            time.sleep(moment)
            os.kill(pid, signum)
        code, text, _ = child(undisturbed.home, folder, lambda: run.main(SMALL), send)
        if code not in (0, *right_codes) or "Traceback" in text:
            if (folder / "0").exists():                         # else it had not begun yet
                return f"exit code {code} after {moment:.2f} s: {text[-500:]}"
        return undisturbed.problem(folder)
    return fault


def closed_terminal(undisturbed, folder, rng):
    """The terminal that it prints to closes."""
    moment = rng.uniform(0, undisturbed.seconds)

    def main():
        terminal, own = pty.openpty()
        os.dup2(own, 1)
        os.dup2(own, 2)
        signal.signal(signal.SIGALRM, lambda *rest: os.close(terminal))
        signal.setitimer(signal.ITIMER_REAL, moment + .01)
        run.main(SMALL)
    code, text, _ = child(undisturbed.home, folder, main)
    return f"exit code {code}" if code not in (0, 1, 129, 130) else undisturbed.problem(folder)


def file_limit(undisturbed, folder, rng):
    """No file may become larger than a limit, as where a quota ends."""
    limit = int(rng.integers(100, 3 * max(map(len, undisturbed.numbers[0].values())) // 2))

    def main():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        run.main(SMALL)
    code, text, _ = child(undisturbed.home, folder, main)
    if code != 0 and not says_why(code, text):
        return f"exit code {code} with files of at most {limit} bytes: {text[-500:]}"
    return undisturbed.problem(folder)


def memory_limit(undisturbed, folder, rng):
    """No more memory than a limit: whatever it says then, what was saved is not lost."""
    more = int(rng.integers(0, 200)) * 2 ** 20

    def main():
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + more, resource.RLIM_INFINITY))
        run.main(SMALL)
    child(undisturbed.home, folder, main)
    return undisturbed.problem(folder)


def mount(folder, options="", flags=0):
    """Mount a disk in the memory on a folder; returns whether that was possible."""
    return LIBC.mount(b"tmpfs", str(folder).encode(), b"tmpfs", flags, options.encode()) == 0


def may_mount():
    """Whether this system lets a child mount a disk of its own."""
    pid = os.fork()
    if pid == 0:
        os._exit(LIBC.unshare(NEW_MOUNTS) != 0 or LIBC.mount(b"none", b"/", None, PRIVATE, None) != 0)
    return os.waitpid(pid, 0)[1] == 0


def on_own_disk(undisturbed, folder, options, spoil):
    """A run on a disk of its own, with these options, which ends with an error; on a sound one it is resumed.

    spoil(): is called before it starts.
    """
    disk = folder / "disk"
    disk.mkdir(parents=True)

    def main():
        storage.RUNS = disk
        assert LIBC.unshare(NEW_MOUNTS) == 0 and LIBC.mount(b"none", b"/", None, PRIVATE, None) == 0
        assert mount(disk, options)
        spoil(disk)
        try:
            run.main(SMALL)
        except Exception as error:
            print(f"first: {type(error).__name__}: {error}")
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert mount(disk, "size=100m", REMOUNT)
        if (disk / "0" / "settings.json").exists():
            if not storage.is_finished(disk / "0"):
                run.main(["RESUME=last"])
            shutil.copytree(disk / "0", folder / "0")
    code, text, _ = child(undisturbed.home, folder, main)
    first = text.partition("first: ")[2]
    if code or first and not first.startswith("UserError"):
        return f"exit code {code}, {options}: {text[-700:]}"
    return undisturbed.differs(folder) if (folder / "0").exists() else ""


def full_disk(undisturbed, folder, rng):
    """The disk has room for a random part of the run."""
    size = sum(map(len, undisturbed.numbers[0].values())) // 1024
    return on_own_disk(undisturbed, folder, f"size={rng.integers(4, 2 * size)}k", lambda disk: None)


def read_only_disk(undisturbed, folder, rng):
    """The disk becomes read-only at a random moment, perhaps before the start."""
    moment = rng.uniform(-.2, 1) * undisturbed.seconds

    def spoil(disk):
        def become(*rest):
            if not mount(disk, "", REMOUNT | READ_ONLY):        # a file is open for writing
                signal.setitimer(signal.ITIMER_REAL, .001)
        signal.signal(signal.SIGALRM, become)
        become() if moment <= 0 else signal.setitimer(signal.ITIMER_REAL, moment)
    return on_own_disk(undisturbed, folder, "size=100m", spoil)


def clock_set_back(undisturbed, folder, rng):
    """The clock is set back by years, and again at the random moment at which the run is killed and resumed."""
    moment, set_back = rng.uniform(0, undisturbed.seconds), rng.uniform(0, 1e9, 2)

    def main(arguments, seconds):
        now, text = time.time, time.strftime
        time.time = lambda: now() - seconds
        time.strftime = lambda form, of=None: text(form, of or time.gmtime(now() - seconds))
        run.main(arguments)

    def kill(pid):
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
    child(undisturbed.home, folder, lambda: main(SMALL, set_back[0]), kill)
    if (folder / "0" / "settings.json").exists() and not storage.is_finished(folder / "0"):
        code, text, _ = child(undisturbed.home, folder, lambda: main(["RESUME=last"], set_back.sum()))
        if code:
            return f"RESUME ends with {code}: {text[-500:]}"
    return undisturbed.problem(folder)


FAULTS = {"SIGKILL": sent(signal.SIGKILL, [-signal.SIGKILL]), "SIGTERM": sent(signal.SIGTERM, [130]),
          "SIGINT": sent(signal.SIGINT, [130]), "SIGHUP": sent(signal.SIGHUP, [-signal.SIGHUP]),
          "closed terminal": closed_terminal, "file size limit": file_limit, "memory limit": memory_limit,
          "clock set back": clock_set_back, "full disk": full_disk, "read-only disk": read_only_disk}
NEED_MOUNT = ("full disk", "read-only disk")


def faulty(undisturbed, name, count, seed):
    """(what was tried, problem or an empty text) of so many runs with the fault of this name."""
    for number in range(count):
        folder = undisturbed.home / f"{name} {number}"
        yield f"run {number}", FAULTS[name](undisturbed, folder, np.random.default_rng([seed, number]))
        shutil.rmtree(folder)
