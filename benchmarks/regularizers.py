"""Compares metrics, regularisers, weights and other models after equally many training steps, on held-out faces.

In: faces (DATA). Out: benchmarks/results/<data>_<fingerprint>_<split>/: table.md, summary.md, consistency.md,
results.json, pareto.png.
python -m benchmarks.regularizers, or only some points: POINTS=none,ours. Started again, it continues where it stopped.
"""
import re
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

import experiments
import expr_classifier.run as classifier_script
import metric_vae.run as vae_script
import run
from benchmarks.pareto import pareto, steps
from benchmarks.points import Bench, fingerprint, make_networks, model_of, read_points, read_result, run_point
from benchmarks.tables import spread, summary, table, with_and_without
from data.sources import load
from training import storage
from training.devices import choose_device, choose_precision, keep_memory
from training.errors import UserError, check_at_least, check_between, check_choice, run_script, whole_numbers
from training.files import make_folder, write_json, write_text
from training.settings import default_settings, parse_one

# --- what is compared
DATA = "synthetic"          # "auto", "synthetic", "tfd", "fer2013", "olivetti", "lfw",
                            # "torchvision:MNIST", ... or a path: see data/README.md
IMAGE_SIZE = 48             # pixels
FOLD = 0                    # 0..4, of TFD's five
TRAINING_FACES: int | None = None       # train on so many faces only, drawn at random, and on all faces of each person
SPLIT = "val"               # the held-out faces that are scored: "val" to choose settings by, on seeds 0, 1 and 2;
                            # "test" to report them, on seeds 3 to 7: SPLIT=test SEEDS=3,4,5,6,7
SEEDS = "0,1,2"             # of classifier, judge and VAE, with commas between; the faces and their split are the same
POINTS = "all"              # names of SETTINGS with commas between, or "all"
DEVICE = "auto"             # "auto", "cpu", "cuda", ...
PRECISION = "auto"          # "auto", "fp32", "bf16"

# --- the conditional VAE of benchmarks/baselines.py
LABEL_SCALE = 8.0           # the decoder gets this times the one-hot label: with 1 far fewer edits succeed

# --- the CSVAE there
W_DIM = 14                  # dimensions of w; z has the other Z_DIM - W_DIM
W_MEAN = 1.0                # of p(w|y) at first, in the dimensions of the label y
W_KL = 1.0                  # weight of KL(q(w|x,y) || p(w|y)), relative to alpha
ADVERSARY = 5.0             # weight of the negative entropy of q(y|z), in nats
ADVERSARY_WIDTH = 128       # units of each of its two hidden layers
ADVERSARY_STEPS = 1         # of the adversary for each one of the VAE

# --- the points: a name, and what it sets in metric_vae/run.py. METRIC is the classifier's, as in run.py, or "table":
# --- its embeddings as points without pixels, or "matrix": the distances of all pairs of these
SETTINGS = {
    "none": "",                                                 # without a metric: no_dist_reg
    "ours": "",
    "table": "METRIC=table",
    "matrix": "METRIC=matrix",
    "action_units": "METRIC=action_units METRIC_DIMS=16 METRIC_BATCH=192 LOOKED_UP=0.66",  # the 20 of synthetic faces
    "labels": "METRIC=labels",                                  # what ours makes of the baselines' input
    "conditional_vae": "",                                      # benchmarks/baselines.py
    "conditional_vae_joined": "",
    "csvae": "",
    "csvae_joined": "",
    "reference": " ".join(text.removeprefix("vae.") for text in run.REFERENCE if text.startswith("vae.")),
    "whole_z": "METRIC_DIMS=None",
    "ours_alone": "CONSISTENCY=0",
    "whole_z_alone": "METRIC_DIMS=None CONSISTENCY=0",
}
for _name, _beta in (("local_stress", 1000), ("correlation", 1000), ("log_ratio", 300), ("triplet", 1000),
                     ("batchwise", 1e5), ("pointwise", 1), ("expanding_pointwise", 1), ("contracting_pointwise", 1)):
    SETTINGS[_name] = f"REGULARIZER={_name} BETA={_beta:g}"
    SETTINGS[f"{_name}_alone"] = SETTINGS[_name] + " CONSISTENCY=0"
LONGER = {1: "", 4: "_x4", 16: "_x16"}      # times the usual steps, in steps.png: how a point's name ends
for _times in list(LONGER)[1:]:
    SETTINGS |= {_name + LONGER[_times]: f"STEPS={_times * vae_script.STEPS}" for _name in ("none", "ours")}

RESULTS = Path(__file__).parent / "results"
MARKED = {                  # in the figure: marker and its size
    "none": ("s", 8), "ours": ("*", 14), "reference": ("D", 8), "conditional_vae": ("^", 8),
    "conditional_vae_joined": ("^", 8), "csvae": ("v", 8), "csvae_joined": ("v", 8)}


def main(arguments):
    settings = parse_one(arguments, sys.modules[__name__])
    names = list(SETTINGS) if settings.POINTS == "all" else settings.POINTS.split(",")
    for name in names:
        check_choice("POINTS", name, SETTINGS)
    check_choice("SPLIT", settings.SPLIT, ("val", "test"))
    seeds = whole_numbers("SEEDS", settings.SEEDS)
    if settings.TRAINING_FACES is not None:
        check_at_least(1, settings, "TRAINING_FACES")
    check_between(1, 4096, settings, "W_DIM", "ADVERSARY_WIDTH")
    check_between(0, 1e6, settings, "LABEL_SCALE", "W_MEAN", "W_KL", "ADVERSARY")
    check_between(0, 1000, settings, "ADVERSARY_STEPS")
    keep_memory()
    device = choose_device(settings.DEVICE)
    precision = choose_precision(settings.PRECISION, device)
    faces = load(settings.DATA, settings.IMAGE_SIZE, settings.FOLD)
    if settings.TRAINING_FACES is not None:
        faces = fewer(faces, settings.TRAINING_FACES)
    if faces.factors is None and settings.POINTS == "all":
        names = [name for name in names if name != "action_units"]
    count = f"_{settings.TRAINING_FACES}_faces" if settings.TRAINING_FACES else ""
    name = re.sub(r"\W+", "_", faces.name)
    folder = RESULTS / f"{name}_{faces.fingerprint[:8]}{count}_{settings.SPLIT}"
    make_folder(folder)
    storage.start_settings(folder, benchmark=asdict(settings), points=SETTINGS, data=faces.about(), device=str(device),
                           precision=precision)
    bench = Bench(faces, folder, settings, SETTINGS, replace(default_settings(experiments), SPLIT=settings.SPLIT),
                  default_settings(classifier_script), device, precision)

    def missing_of(seed):
        done, _ = read_points(bench, seed, names)
        return [name for name in names if name not in done]
    missing, count, start = {seed: missing_of(seed) for seed in seeds}, 0, time.perf_counter()
    print(f"{faces.name}: {len(faces)} faces; {device}, {precision}; {sum(map(len, missing.values()))} models to train")
    try:
        for seed in filter(missing.get, seeds):
            networks = make_networks(bench, seed)
            judged_by = fingerprint(networks)
            missing[seed] = missing_of(seed)                    # all, where these networks became others
            total = sum(map(len, missing.values()))
            for name in missing[seed]:
                count += 1
                try:
                    scores = run_point(bench, name, networks, seed)
                except UserError as error:                      # for example a weight that is too high for it
                    print(f"{name}, seed {seed}, is left out: {error}")
                    continue
                write_json(folder / f"seed{seed}" / f"{name}.json",
                           dict(settings=bench.identity_of(name), networks=judged_by, scores=scores,
                                git_commit=storage.git_commit(), threads=torch.get_num_threads()))
                left = (time.perf_counter() - start) / count * (total - count) / 60
                shown = ", ".join(f"{key} {scores[key]:.3f}" for key in ("error", "spearman", "edit_success")
                                  if key in scores)
                print(f"{count} of {total}, {name}, seed {seed}: {shown}; about {left:.0f} min left", flush=True)
    finally:                                                    # stopped, too, it shows what there is
        write_results(bench)
    storage.finish_settings(folder)


def fewer(faces, count):
    """The faces with only some training faces, drawn at random: at least count, those of a known person all or none."""
    rows = faces.rows("train")
    units = np.where(faces.identities >= 0, faces.identities, -2 - np.arange(len(faces)))[rows]
    kept = np.zeros(len(rows), bool)
    for unit in np.random.default_rng(0).permutation(np.unique(units)):
        if kept.sum() >= count:
            break
        kept |= units == unit
    split = faces.split.copy()
    split[rows[~kept]] = -1
    return replace(faces, split=split)


# --- all results

def write_results(bench):
    """Write results.json, the tables and the figures of all points and seeds that were run with these settings."""
    folder, faces, split = bench.folder, bench.faces, bench.settings.SPLIT
    classifiers, runs = {}, {}                                  # seed: scores; point: {seed: scores}
    for path in sorted(folder.glob("seed*"), key=lambda path: int(path.name[4:])):
        seed = int(path.name[4:])
        found, stale = read_points(bench, seed, SETTINGS)
        if stale:
            print(f"seed {seed}: left out, as other networks judged them: {', '.join(stale)} (POINTS=... SEEDS={seed} "
                  "runs them again)")
        if found:
            of_seed = read_result(path / "classifiers.json", bench.identity_of(None))
            classifiers[seed] = of_seed["scores"]
        for name, scores in found.items():
            none = "none" + (re.search(r"_x\d+$", name) or [""])[0]                # after as many steps
            if none in found:
                scores = {**scores, "error_ratio": scores["error"] / found[none]["error"]}
            runs.setdefault(name, {})[seed] = scores
    points = {name: spread(runs[name]) for name in SETTINGS if name in runs}
    ceilings = spread(classifiers)
    seeds = ", ".join(map(str, classifiers))
    usual = default_settings(vae_script)
    title = (f"{faces.name}, {len(faces.rows('train'))} training faces, scored on {len(faces.rows(split))} of the "
             f"{split} split; {usual.STEPS} steps of {usual.BATCH} faces on {bench.device.type} in "
             f"{bench.precision}; seeds: {seeds}")
    write_json(folder / "results.json", dict(
        title=title, data=faces.about(), classifiers=classifiers, ceilings=ceilings, settings=SETTINGS,
        seeds=runs, points=points))
    counts = {name: len(of_point) for name, of_point in runs.items()} | {"classifiers": len(classifiers)}
    text = table(title, points, ceilings, counts)
    write_text(folder / "table.md", text)
    write_text(folder / "summary.md", summary(title, points, ceilings, counts))
    of_consistency = with_and_without({name: runs[name] for name in points})
    if of_consistency:
        write_text(folder / "consistency.md", of_consistency)
    compared = {name: scores for name, scores in points.items() if "error_ratio" in scores}
    if compared:
        spread_shown = " (mean; bars: min to max)" if len(classifiers) > 1 else ""
        pareto(folder / "pareto.png", title + spread_shown, compared, ceilings,
               {name: style(bench, name, len(runs[name])) for name in compared})
    else:
        print("no error ratios, no pareto.png: POINTS=none runs what they are relative to")
    curves = {model: {times * usual.STEPS: runs[model + longer] for times, longer in LONGER.items()
                      if model + longer in runs} for model in ("none", "ours")}
    if len(curves["ours"]) > 1:
        of_all = set.intersection(*(set(of_seeds) for curve in curves.values() for of_seeds in curve.values()))
        curves = {model: {count: spread({seed: of_seeds[seed] for seed in of_all}) for count, of_seeds in curve.items()}
                  for model, curve in curves.items()}
        steps(folder / "steps.png", f"{faces.name}, {split} faces, batches of {usual.BATCH}; seeds: "
              f"{', '.join(map(str, sorted(of_all)))}", curves, spread({seed: classifiers[seed] for seed in of_all}))
    print(f"{text}\nwrote the results to {folder}")


def style(bench, name, seeds):
    """How a point of so many seeds is drawn: its colour says whether it has consistency, its marker which are those to
    look at.
    """
    consistent = max(bench.vae_settings(name).CONSISTENCY) > 0
    other = model_of(name) != "dist_reg"
    colour = "#444444" if other else "#D55E00" if consistent else "#0072B2"        # Okabe and Ito's
    marker, size = MARKED.get(name, ("o", 6))
    return dict(color=colour, marker=marker, markersize=size, linestyle="none",
                fillstyle="none" if seeds == 1 else "full")


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]), "the same command continues after the last point that is done")
