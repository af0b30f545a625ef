"""Wrong arguments: every constant of every script with values that it may not have."""
import contextlib
import io
import json
import os
import time

import experiments
import expr_classifier.run as classifier_script
import metric_vae.run as vae_script
import run
from benchmarks import compare, regularizers, scale, speed
from data import options
from stress import runs
from training import storage
from training.errors import UserError
from training.settings import constants

SECONDS = 5                     # of processor time, after which a refusal comes too late
VALUES = ("-1", "0", "-0.5", "1e-300", "1e39", "1e400", "-1e400", "inf", "nan", "1000000000", "1" + 30 * "0",
          5000 * "9", "", "x", "()", "(1,)", "(nan,0)", "(0,1e400)", "None", "True", "(1", "a,b", "9..", "²",
          "~nobody/x", 10000 * "(", 100000 * "y", "{[]:1}", "é\udcff")
SMALL = ["DATA=faces.npz", "IMAGE_SIZE=16", "DEVICE=cpu", "PRECISION=fp32"]
QUICK = [*SMALL, "classifier.STEPS=1", "vae.STEPS=1", "vae.Z_DIM=16"]
SCRIPTS = {                     # name: (module, its arguments, further modules whose constants it takes)
    "run": (run, QUICK, {"classifier": classifier_script, "vae": vae_script, "faces": options}),
    "expr_classifier.run": (classifier_script, [*SMALL, "STEPS=1"], {"faces": options}),
    "metric_vae.run": (vae_script, [*SMALL, "STEPS=1", "Z_DIM=16", "METRIC=pixels"], {"faces": options}),
    "experiments": (experiments, ["JUDGE_STEPS=1", "JUDGE_BATCH=16", "IDENTITY_STEPS=0", "SAMPLE=20", "SHOWN=2",
                                  "DEVICE=cpu", "EXPLORER=False"], {}),
    "benchmarks.compare": (compare, [], {}), "benchmarks.regularizers": (regularizers, SMALL, {}),
    "benchmarks.scale": (scale, ["DEVICE=cpu"], {}), "benchmarks.speed": (speed, ["DEVICE=cpu", "PRECISION=fp32"], {})}


class Started(Exception):
    """A script has read its arguments and the data, and is about to write."""


def start(*rest):
    """What stands for make_folder, which each script calls before it works."""
    raise Started


def prepare(home, patch):
    """A folder with faces and a finished, scored run 0, which the scripts are called in; they stop before they begin to
    work. patch: a MonkeyPatch.
    """
    patch.chdir(home)
    patch.setattr(storage, "RUNS", home / "runs")
    runs.write_faces(home)
    with contextlib.redirect_stdout(io.StringIO()):
        run.main(QUICK)
        patch.setattr(speed.synthetic, "load", lambda *rest: None)
    of_model = dict(error=1.0, spearman=0.5)
    (home / "runs" / "0" / "scores.json").write_text(json.dumps(dict(
        split="test", no_dist_reg=of_model, dist_reg=of_model)))
    for module in (storage, *(module for module, *_ in SCRIPTS.values())):
        if hasattr(module, "make_folder"):
            patch.setattr(module, "make_folder", start)


def cases():
    """(script, argument) of every constant of every script with each of VALUES."""
    for script, (module, _, others) in SCRIPTS.items():
        names = [*constants(module)] + [f"{prefix}.{name}" for prefix, other in others.items()
                                        for name in constants(other) if name not in constants(module)]
        yield from ((script, f"{name}={value}") for name in names for value in VALUES)


def problem(script, argument):
    """What is wrong with how a script takes an argument, or an empty text: it should start, or refuse it at once with a
    message of four parts and without a new run folder.
    """
    module, usual, _ = SCRIPTS[script]
    before, began = os.listdir(storage.RUNS), time.process_time()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            module.main([*usual, argument])
        return ""
    except Started:
        return ""
    except UserError as error:
        if not all(map(str, error.args)):
            return "an empty message"
    except BaseException as error:                              # what would be a traceback
        return f"{type(error).__name__}: {str(error)[:200]}"
    if time.process_time() - began > SECONDS:
        return f"took {time.process_time() - began:.0f} s"
    return "" if os.listdir(storage.RUNS) == before else "a new run folder"
