"""Files that are written whole, or not at all; errors say which file and why.

In: bytes, text or plain values. Out: the file.
"""
import json
import os
from contextlib import suppress
from pathlib import Path

from training.distributed import PROCESS
from training.errors import UserError
from training.stopping import unstoppable


@unstoppable()
def write_atomically(path, write):
    """Write a file next to its place and rename it: write(file) gets a binary file. Only the first process writes.

    Raises UserError where the disk is full or the folder may not be written to; the old file stays.
    """
    if PROCESS > 0:
        return
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(unfinished, "wb") as file:
            write(file)
        os.replace(unfinished, path)
    except BaseException as error:
        with suppress(OSError):                                 # where nothing may be written, there is nothing left
            unfinished.unlink()
        cause = error.__context__ if isinstance(error, RuntimeError) else error     # torch.save hides a full disk's, or
        if isinstance(cause, OSError):                                              # Ctrl-C, in an error of its own
            raise UserError(path, "a file that can be written", cause,
                            "free some disk space or choose a folder you may write to") from None
        if isinstance(cause, KeyboardInterrupt):
            raise cause from None
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
    """Read a JSON object; raises UserError where the file is missing or damaged."""
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        content = error
    if not isinstance(content, dict):
        raise UserError(path, "a JSON file of a run", content, "restore the file, or start a new run")
    return content
