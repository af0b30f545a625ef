"""What a run keeps on disk: its folder and settings.

In: plain values. Out: files in experiments/N/. Knows nothing of faces or models.
"""
import hashlib
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

try:
    import fcntl
except ImportError:                                             # Windows
    fcntl = None

from training.devices import choose_device
from training.distributed import PROCESS, PROCESSES, of_first_process
from training.errors import UserError
from training.files import make_folder, read_json, write_json
from training.plugins import is_plugin
from training.settings import constants, fits, restored

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "experiments"
FORMAT = 1                      # of settings.json and a run folder: one more whenever older ones cannot be read
PATHS = ("DATA", "METRIC")      # constants that may be paths; any may be one of "my_file.py:function"
ENTRIES = dict(data=dict, faces=dict, device=str, precision=str)       # of settings.json, besides the scripts'
OF_DATA = ("name", "count", "size", "channels", "split", "classes", "fingerprint")


# --- run folders

def new_run_folder():
    """Make and return the next experiments/N; two programs never get the same one, the processes of one do."""
    if PROCESS > 0:
        return of_first_process(None)
    make_folder(RUNS)
    number = max((int(p.name) for p in RUNS.iterdir() if p.name.isdecimal()), default=-1) + 1
    while True:
        try:
            (RUNS / str(number)).mkdir()
            return of_first_process(RUNS / str(number))
        except FileExistsError:
            number += 1
        except OSError as error:
            raise UserError(RUNS, "a folder that can be written", error, "choose a folder you may write to") from None


def is_running(process):
    """Whether there is a process of this number on this machine; not on Windows, where asking may end it."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:                                     # of another user
        pass
    return True


@contextmanager
def hold(folder):
    """Hold a run folder within the block; raises UserError where another program does.

    Windows, and file systems without locks, let both continue.
    """
    if fcntl is None or PROCESS > 0:
        yield
        return
    held = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):                                 # a file system without locks
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(folder, "a run that no program works on", "another program trains it",
                                "wait for it or stop it; RESUME=N continues another run") from None
        for unfinished in folder.glob(".*.tmp"):
            process = unfinished.name.split(".")[-2]
            if process.isdecimal() and not is_running(int(process)):    # of a program that was killed
                unfinished.unlink()
        yield
    finally:
        os.close(held)


def find_run(which, finished=None, constants_of="data"):
    """The folder of run `which`: its number, the path of its folder, or "last", the newest.

    finished: True or False: only such runs; None: both, and "last" is the newest finished one if there is any.
    constants_of: runs count whose settings hold the constants of this script: "run", "classifier" or "vae"; by default
    all count. Raises UserError where there is none.
    """
    state = {True: "finished ", False: "unfinished ", None: ""}[finished]

    def counts(settings):
        return constants_of in settings and finished in (None, settings.get("finished"))
    if isinstance(which, str) and re.fullmatch("[0-9]{1,9}", which):
        which = int(which)
    if isinstance(which, (str, Path)) and which != "last":
        folder = Path(os.path.expanduser(which))
        if os.path.exists(folder / "settings.json") and counts(read_json(folder / "settings.json")):
            return folder
        raise UserError(folder.absolute(), f"the number of a run or the folder of a {state}run",
                        "no settings.json of one", "check the path")
    found = {}                                                  # number: whether it is finished
    for number in numbered_runs():
        try:
            settings = read_json(RUNS / str(number) / "settings.json")
        except UserError as error:
            if number == which:
                raise
            print(f"warning: passed over {RUNS / str(number)}: {error.args[2]}", file=sys.stderr)
            continue
        if counts(settings):
            found[number] = bool(settings.get("finished"))
    newest = max(found, key=lambda number: (found[number], number), default=None)
    number = newest if which == "last" else which
    if number in found:
        return RUNS / str(number)
    raise UserError(RUNS, f"{state}run {which}", f"{state}runs: {list(found) or 'none'}",
                    "python run.py starts one, RESUME=N continues an unfinished one")


def numbered_runs():
    """The numbers of all runs in experiments/, sorted."""
    paths = RUNS.glob("*/settings.json")
    return sorted(int(path.parent.name) for path in paths if path.parent.name.isdecimal())


def is_finished(folder):
    """Whether the run in a folder is finished."""
    return bool(read_json(folder / "settings.json").get("finished"))


# --- settings.json

def start_settings(folder, **settings):
    """Write settings.json: what is given, with the user's own code that it names, versions, git commit and the command.
    """
    names = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "matplotlib")
    command = [sys.argv[0].removeprefix(f"{ROOT}{os.sep}"), *sys.argv[1:]]     # python -m gives the whole path
    versions = dict(python=sys.version.split()[0], **{name: version(name) for name in names})
    settings = dict(format=FORMAT, finished=False, command=command, started=time.strftime("%Y-%m-%d %H:%M:%S"),
                    **settings, own_code=own_code(settings), versions=versions, git_commit=git_commit(),
                    threads=torch.get_num_threads(), processes=PROCESSES)
    write_json(folder / "settings.json", settings)


def own_code(settings):
    """{path: text} of the user's files that settings name as "my_file.py:function"; settings: {script: its constants}.
    """
    values = (value for part in settings.values() if isinstance(part, dict) for value in part.values())
    paths = {value.rpartition(":")[0] for value in values if is_plugin(value)}
    return {path: Path(path).read_text(errors="replace") for path in sorted(paths)}


def warn_of_changed_code(kept, folder):
    """Say so where a file of the user's differs from what it was when the run in a folder was started; kept: that run's
    settings.json.
    """
    code = kept.get("own_code")
    for path, text in code.items() if isinstance(code, dict) else ():
        if os.path.isfile(path) and Path(path).read_text(errors="replace") != text:
            print(f"warning: {path} has changed since that run was started; what it was is in "
                  f"{folder / 'settings.json'}, own_code", file=sys.stderr)


def absolute(settings, keywords):
    """A script's settings with absolute paths, where they exist, so that the run can be used from elsewhere.

    keywords: values that are not taken for paths, even where a file or folder has that name.
    """
    def of(value):
        path, colon, function = value.rpartition(":") if is_plugin(value) else (value, "", "")
        try:
            path = Path(path).expanduser()
            return f"{path.resolve()}{colon}{function}" if path.exists() else value
        except (OSError, RuntimeError, ValueError):             # too long for a name, no such user, a null byte
            return value
    return replace(settings, **{
        name: of(value) for name, value in vars(settings).items()
        if is_plugin(value) or name in PATHS and isinstance(value, str) and value not in keywords})


def finish_settings(folder):
    """Mark a run as finished."""
    if PROCESS == 0:
        write_json(folder / "settings.json", {**read_json(folder / "settings.json"), "finished": True})


def about_run(folder):
    """The settings.json of a run, a dict; raises UserError where it is of another format or lacks an entry."""
    kept = read_json(folder / "settings.json")
    if kept.get("format") != FORMAT:
        raise UserError(folder, f"a run of format {FORMAT}, as this version writes", f"format {kept.get('format')}",
                        f"check out the commit of that run: {kept.get('git_commit')}")
    bad = [name for name, kind in ENTRIES.items() if not isinstance(kept.get(name), kind)]
    bad = bad or [f"data.{name}" for name in OF_DATA if name not in kept["data"]]
    if bad:
        raise UserError(folder / "settings.json", f"an entry {bad[0]}", "none", "restore the file, or start a new run")
    return kept


def read_settings(folder, scripts):
    """The Settings of the scripts of a run, {prefix: Settings}, of those that the run has.

    scripts: {prefix: module}, where "" is run.py. A constant that this version no longer has is left out. Raises
    UserError where constants of these scripts are missing, as in a run of an earlier version, or of another type.
    """
    kept = about_run(folder)
    warn_of_changed_code(kept, folder)
    parts = {prefix: kept.get(prefix or "run") for prefix in scripts if "run" in kept or (prefix or "run") in kept}
    missing, settings = [], {}
    for prefix, part in parts.items():
        known, started = constants(scripts[prefix]), next(iter(parts.values()))     # of the script that was started
        if not isinstance(part, dict):
            raise UserError(folder / "settings.json", f"the constants of {prefix or 'run'}", repr(part),
                            "restore the file, or start a new run")
        missing += [f"{prefix}.{name}".lstrip(".") for name in known if name not in part and name not in started]
        settings[prefix] = restored({name: value for name, value in part.items() if name in known})
        for name, value in vars(settings[prefix]).items():
            if not fits(value, name, scripts[prefix]):
                raise UserError(folder / "settings.json", f"{name}: a value like {known[name]!r}", repr(value),
                                "restore the file, or start a new run")
    if missing:
        raise UserError(folder, "a run with all constants of this version", f"none of {', '.join(sorted(missing))}",
                        f"check out the commit of that run: {kept.get('git_commit')}")
    return settings


def refuse_more_than_resume(arguments):
    """Raise UserError if there are arguments other than RESUME."""
    more = [argument for argument in arguments if not argument.startswith("RESUME=")]
    if more:
        raise UserError(" ".join(arguments), "only RESUME: a resumed run keeps its settings", " ".join(more),
                        "leave it out, or start a new run")


def check_same_data(folder, about):
    """Raise UserError unless the run folder's data has the fingerprint of about."""
    of_run = read_json(folder / "settings.json")["data"]
    if of_run["fingerprint"] != about["fingerprint"]:
        names = ("name", "count", "size", "fingerprint")
        text = lambda data: ", ".join(f"{name} {data.get(name)}" for name in names)
        raise UserError(folder, f"the faces of that run: {text(of_run)}", text(about),
                        "restore the data, or start a new run that takes nothing of this one")


def stored_device(folder, name):
    """A device of the type on which an unfinished run was started, and that run's precision.

    name: its DEVICE. Raises UserError if there is no device of that type: another type draws other random numbers.
    """
    settings = read_json(folder / "settings.json")
    kind = torch.device(settings["device"]).type
    device = choose_device("cpu" if kind == "cpu" else name)
    if kind != device.type:
        raise UserError(folder, f"a device of the type on which it was started: {kind}", device.type,
                        "resume it where there is one, or start a new run")
    return device, settings["precision"]


def warn_of_rounding(folder):
    """Say so where an unfinished run goes on with another number of threads or processes than it was begun with."""
    of_run, now = read_json(folder / "settings.json"), dict(threads=torch.get_num_threads(), processes=PROCESSES)
    differ = [f"{of_run[name]} {name} before, {count} now" for name, count in now.items()
              if of_run.get(name, count) != count]
    if differ:
        print(f"warning: {'; '.join(differ)}: the last digits may differ from those of an uninterrupted run")


def git_commit():
    """The commit of this checkout, with "+" where files differ from it, or None outside git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout
        return commit + "+" if changed.strip() else commit
    except (OSError, subprocess.CalledProcessError):
        return None


def code_fingerprint(*files):
    """A hash of the code that trains VAEs, and of these files of the user's."""
    own = (path for package in ("data", "metric_vae", "training") for path in sorted((ROOT / package).glob("*.py")))
    return hashlib.sha256(b"".join(Path(path).read_bytes() for path in (*own, *files))).hexdigest()[:16]
