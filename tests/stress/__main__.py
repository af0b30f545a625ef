"""Ill-treats the program for about ten minutes, and prints what it did not survive: python -m tests.stress (Linux)

Wrong arguments, broken inputs, and runs that are killed, stopped or starved and then resumed. Exit code 1 if anything
ended in a traceback, a hang, a half-made run folder or other numbers. The default tests try fewer of each.
"""
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"                             # networks this small are slower on more
sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

import pytest                                                   # noqa: E402, after the path

from stress import arguments, inputs, runs                      # noqa: E402

SEED = 0
ARGUMENTS = 1                   # every n-th value of every constant
DATA_FILES = 300
RUN_FOLDERS = 100
RUNS = {"SIGKILL": 100, "SIGTERM": 20, "SIGINT": 20, "SIGHUP": 10, "closed terminal": 10, "file size limit": 20,
        "memory limit": 20, "clock set back": 10, "full disk": 20, "read-only disk": 20}
SECTIONS = ("arguments", "data files", "run folders", *RUNS)


def wrong_arguments(home):
    """(argument, problem) of all of them, in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        arguments.prepare(home, patch)
        for script, argument in list(arguments.cases())[::ARGUMENTS]:
            yield f"{script} {argument[:60]}", arguments.problem(script, argument)


def attempts(section, home):
    """(what was tried, problem or an empty text) of a section."""
    if section == "arguments":
        return wrong_arguments(home)
    if section == "data files":
        return (tried[:2] for tried in inputs.broken_data(home, DATA_FILES, SEED))
    if section == "run folders":
        return (tried[:2] for tried in inputs.broken_runs(home, RUN_FOLDERS, SEED))
    return runs.faulty(runs.Undisturbed(home), section, RUNS[section], SEED)


def main():
    lines, bad = [], 0
    for section in sys.argv[1:] or SECTIONS:
        if section in runs.NEED_MOUNT and not runs.may_mount():
            lines.append(f"{section:20} not tried: this system lets it mount no disk")
            continue
        began, tried, problems = time.perf_counter(), 0, []
        with tempfile.TemporaryDirectory() as home:
            with open(os.devnull, "w") as nowhere, pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "stdout", nowhere)
                patch.setattr(sys, "stderr", nowhere)
                for what, problem in attempts(section, Path(home)):
                    tried += 1
                    if problem:
                        problems.append(f"{section}, SEED={SEED}, {what}: {problem}")
        print("\n".join(problems) or f"{section}: {tried} tried", flush=True)
        bad += len(problems)
        lines.append(f"{section:20}{tried:8}{tried - len(problems):8}{len(problems):8}"
                     f"{time.perf_counter() - began:9.0f}")
    print(f"\n{'section':20}{'tried':>8}{'good':>8}{'bad':>8}{'seconds':>9}\n" + "\n".join(lines))
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
