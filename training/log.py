"""The log of a run: experiments/N/log.jsonl, one line of JSON per stage and epoch.

In: plain values. Out: lines, as dicts.
"""
import json
import sys

from training.distributed import PROCESS
from training.errors import UserError
from training.files import write_atomically, write_text


def read_log(folder, stage=None):
    """The lines of log.jsonl as dicts, of one stage or of all; raises UserError where it cannot be read."""
    path = folder / "log.jsonl"
    try:
        texts, lines = path.read_bytes().splitlines() if path.exists() else [], []
    except OSError as error:
        raise UserError(path, "the log of a run", error, "restore the file, or remove it") from None
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
            lines.append(line | dict(stage=line["stage"], epoch=int(line["epoch"])))
        except (ValueError, TypeError, KeyError):
            print(f"warning: {path}: left out line {number}, which is damaged", file=sys.stderr)
    return [line for line in lines if stage in (None, line["stage"])]


def write_log(folder, stage, epoch, **values):
    """Set the line of one stage and epoch (from 1); drops later epochs of that stage, which a resumed run repeats."""
    if PROCESS > 0:
        return
    for value in values.values():
        assert value is None or isinstance(value, (int, float, list)), value
    lines = [line for line in read_log(folder) if line["stage"] != stage or line["epoch"] < epoch]
    write_lines(folder, [*lines, dict(stage=stage, epoch=epoch, **values)])


def write_lines(folder, lines):
    """Write log.jsonl whole."""
    write_text(folder / "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def copy_stage(source, folder, stage, names):
    """Copy those of these files that are there, and the lines of one stage in the log, from one run folder to another;
    returns the names of the files.
    """
    names = [name for name in names if (source / name).exists()]
    for name in names:
        write_atomically(folder / name, lambda file: file.write((source / name).read_bytes()))
    write_lines(folder, read_log(folder) + read_log(source, stage))
    return names
