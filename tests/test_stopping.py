"""Ctrl-C and SIGTERM, wherever they come: one line, exit code 130, no traceback, and a file is written to its end."""
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAD = """
import ctypes, os, signal, sys, time
from training.stopping import listen, unstoppable

def stop():
    os.kill(os.getpid(), {number})
    os.kill(os.getpid(), {number})
    for _ in range(1000):
        pass

class Dropped:
    def __del__(self):
        stop()

@ctypes.CFUNCTYPE(None)
def callback():
    stop()

listen(at_once=False, remark="go on so")
"""


def stopped(code, number, cwd=ROOT):
    """What a script of HEAD and this code prints on stdout, stopped by signals of this number."""
    done = subprocess.run([sys.executable, "-c", HEAD.format(number=int(number)) + code], cwd=cwd, text=True,
                          capture_output=True, timeout=60)
    assert done.returncode == 130 and done.stderr == "\nstopped. go on so\n", done
    return done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("code", [
    "try:\n    stop()\nfinally:\n    stop()", "try:\n    1 / 0\nexcept ZeroDivisionError:\n    stop()",
    "try:\n    stop()\nexcept BaseException:\n    raise RuntimeError('a library has made this of it')",
    "Dropped()\ntime.sleep(50)", "callback()\ntime.sleep(50)", "listen(remark='go on so')\ntime.sleep(0)\nDropped()"])
def test_a_signal_stops_a_script_without_a_traceback_wherever_it_comes(code, number):
    stopped(code, number)


def test_what_a_script_has_to_clean_up_is_cleaned_up():
    assert stopped("""
import atexit
atexit.register(lambda: (stop(), print("at exit")))
try:
    stop()
finally:
    stop()
    print("clean")
""", signal.SIGTERM) == "clean\nat exit\n"


def test_a_signal_waits_for_a_file_that_is_written_and_counts_once():
    code = """
try:
    with unstoppable():
        stop()
        print("written", flush=True)
    print("not reached")
finally:
    with unstoppable():
        print("cleaned up, too", flush=True)
    print("to the end", flush=True)
"""
    assert stopped(code, signal.SIGINT).split("\n") == ["written", "cleaned up, too", "to the end", ""]


def test_a_signal_that_got_lost_may_be_repeated_later():
    stopped("""
import training.stopping
training.stopping.IGNORED = 0.1
try:
    stop()
except KeyboardInterrupt:
    pass
time.sleep(0.2)
stop()
""", signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("script", [["run.py"], ["experiments.py"], ["-m", "metric_vae.run"],
                                    ["-m", "expr_classifier.run"]])
def test_a_script_can_be_stopped_while_it_is_imported(script, number, tmp_path):
    """Its first import of a library, replaced by one that sends the signal."""
    for name in ("torch", "numpy"):
        (tmp_path / f"{name}.py").write_text(f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(50)")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    (tmp_path / "sitecustomize.py").write_text(code)
    done = subprocess.run([sys.executable, *script], cwd=ROOT, text=True, capture_output=True, timeout=40,
                          env={"PYTHONPATH": str(tmp_path), "PATH": ""})
    assert done.returncode == 130 and done.stderr == "\nstopped.\n" and not done.stdout, done
