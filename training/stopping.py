"""Ctrl-C, and the SIGTERM that torchrun and Slurm send, end a script with one line, exit code 130 and every file whole.

Imports nothing slow, so that a script can call listen() before its other imports, which take seconds.
"""
import ctypes
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress

IGNORED = 5             # seconds in which further signals are ignored, while the program ends

_stopped = None         # time.monotonic() of the signal that stops the program, or None
_at_once = True
_writing = _waits = False       # whether a file is being written, and whether a signal waits for its end
_remark = ""


def listen(at_once=True, remark=""):
    """From now on a signal stops the program, which prints a line that ends with this remark.

    at_once: wherever it is, for as long as there is nothing to clean up; else by raising KeyboardInterrupt.
    """
    global _at_once, _remark
    _at_once, _remark = at_once, remark
    sys.excepthook, sys.unraisablehook = _uncaught, _lost
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)      # PR_SET_PDEATHSIG: torchrun, if killed, takes it along


@contextmanager
def unstoppable():
    """A signal that comes within the block, or within the function so decorated, stops the program after it."""
    global _writing, _waits
    _writing = True
    try:
        yield
    finally:
        _writing = False
        if _waits:
            _waits = False
            raise KeyboardInterrupt


def _stop(*_):
    global _stopped, _waits
    if _stopped is not None and time.monotonic() < _stopped + IGNORED:
        return
    _stopped = time.monotonic()
    if _at_once:
        _end()
    _waits = _writing
    if not _writing:
        raise KeyboardInterrupt


def _say():
    with suppress(OSError):                     # not print: it may be what the signal has interrupted
        os.write(2, f"\nstopped. {_remark}".rstrip().encode() + b"\n")


def _end():
    _say()
    os._exit(130)


def _uncaught(kind, error, traceback):
    if _stopped is not None:                    # KeyboardInterrupt, or what a library has made of it
        _say()
        sys.exit(130)
    sys.__excepthook__(kind, error, traceback)


def _lost(unraisable):
    if unraisable.exc_type is KeyboardInterrupt:        # in a __del__ or in a callback of a library
        _end()
    if _stopped is None:
        sys.__unraisablehook__(unraisable)
