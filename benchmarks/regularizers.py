"""Compares the regularisers at several weights, with and without consistency, at equal training time.

In: faces (DATA). Out: benchmarks/results/<data>_<fingerprint>_<seconds>s_<split>/: table.md, results.json, pareto.png.
python benchmarks/regularizers.py, or one point alone: POINTS=ours. Started again, it goes on where it was stopped.
"""
import json
import re
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import experiments                                              # noqa: E402, after the path
import expr_classifier.judges as judges                         # noqa: E402
import expr_classifier.run as classifier                        # noqa: E402
import metric_vae.run as vae                                    # noqa: E402
import run                                                      # noqa: E402
import training                                                 # noqa: E402
from benchmarks.pareto import pareto                            # noqa: E402
from data.faces import load                                     # noqa: E402
from metric_vae import evaluate, scores as vae_scores           # noqa: E402
from training import UserError, storage                         # noqa: E402

# --- what is compared
DATA = "synthetic"          # "auto", "synthetic", "tfd", "fer2013" or a path: see data/README.md
IMAGE_SIZE = 48             # pixels
FOLD = 0                    # 0..4, of TFD's five
SECONDS = 150.0             # training time of each VAE, without validation; in whole epochs, at least one. On 2 cores
                            # run.py trains its VAE with the regulariser for 110 s
SPLIT = "val"               # the held-out faces that are scored: "val" to choose settings by, on seeds 0, 1 and 2;
                            # "test" to report them, on seeds 3 to 7: SPLIT=test FIRST_SEED=3 SEEDS=5
FIRST_SEED = 0              # of classifier, judge and VAE; the faces and their split are the same
SEEDS = 3                   # how many seeds, from the first on
POINTS = "all"              # names of SETTINGS with commas between, or "all"
DEVICE = "auto"             # "auto", "cpu", "cuda", ...
PRECISION = "auto"          # "auto", "fp32", "bf16"

# --- the points: a name, and what it sets in metric_vae/run.py; the metric is always the classifier's, and EPOCHS
# --- follow from SECONDS
ALONE = "CONSISTENCY=0 EDIT_CONSISTENCY=0 "
SETTINGS = {
    "none": "",                                                 # without a metric: no_dist_reg
    "ours": "",
    "reference": " ".join(s.removeprefix("vae.") for s in run.REFERENCE if s.startswith("vae.")),
    "edits_0": "EDIT_CONSISTENCY=0",                            # consistency of reconstructions alone
    "edits_0.3": "EDIT_CONSISTENCY=(0,0.3)",
    "edits_2": "EDIT_CONSISTENCY=(0,2)",
    "own_branch": "BRANCH_FROM_METRIC=False",                   # trained whole
    "stress_whole_z": "METRIC_DIMS=None",
    "stress_on_z": "REGULARIZE_ON=z",
    "stress_expected": "REGULARIZE_ON=expected",
    "stress_target_0.1": "TARGET_STRESS=0.1",
    "stress_100_alone": ALONE + "BETA=100",
    "stress_1000_alone": ALONE + "BETA=1000",
    "stress_10000_alone": ALONE + "BETA=10000",
    "stress_100_whole_z_alone": ALONE + "METRIC_DIMS=None BETA=100",
    "stress_1000_whole_z_alone": ALONE + "METRIC_DIMS=None BETA=1000",
    "stress_10000_whole_z_alone": ALONE + "METRIC_DIMS=None BETA=10000",
}
for _name, _low, _high in (("local_stress", 300, 3000), ("correlation", 300, 3000), ("log_ratio", 100, 1000),
                           ("triplet", 300, 3000), ("batchwise", 10000, 100000), ("pointwise", 0.1, 1),
                           ("expanding_pointwise", 0.1, 1), ("contracting_pointwise", 0.1, 1)):
    SETTINGS[f"{_name}_{_low}_alone"] = ALONE + f"REGULARIZER={_name} BETA={_low}"
    SETTINGS[f"{_name}_{_high}_alone"] = ALONE + f"REGULARIZER={_name} BETA={_high}"
    SETTINGS[f"{_name}_{_high}"] = f"REGULARIZER={_name} BETA={_high}"

# --- how
WARM_UP = 1024              # training faces of the two short epochs that tell the time of a whole one
VAE_OVERHEAD = 15.0         # seconds of a VAE's warm-up and scores, on 2 cores: for the estimate only
CLASSIFIER_SECONDS = 25.0   # of a seed's two classifiers and judge, per 1000 training faces: for the estimate only

RESULTS = Path(__file__).parent / "results"
SCORES = {                  # the table's columns: heading, decimals
    "error": ("error", 2), "error_ratio": ("error ratio", 3), "psnr": ("PSNR, dB", 1), "kl": ("KL", 0),
    "spearman": ("Spearman", 3), "stress": ("stress", 3), "judge_on_reconstructions": ("judge on reconstructions", 2),
    "edit_success": ("edit success", 2), "edit_success_happy_to_sad": ("happy to sad", 2),
    "edit_error_to_truth": ("edit error to truth", 2), "seconds": ("seconds", 1), "epochs": ("epochs", 0)}
MARKED = {"none": ("s", 8), "ours": ("*", 14), "reference": ("D", 8)}       # in the figure: marker and its size


def main():
    module = sys.modules[__name__]
    training.override(sys.argv[1:], {"": module})
    names = list(SETTINGS) if POINTS == "all" else POINTS.split(",")
    for name in names:
        training.check_choice("POINTS", name, SETTINGS)
    training.check_choice("SPLIT", SPLIT, ("val", "test"))
    training.check_at_least(1, SEEDS=SEEDS)
    training.check_at_least(0, FIRST_SEED=FIRST_SEED)
    if SECONDS <= 0:
        raise UserError("SECONDS", "a time above 0", SECONDS, "set it to 150, say")
    device = training.choose_device(DEVICE)
    precision = training.choose_precision(PRECISION, device)
    faces = load(DATA, IMAGE_SIZE, FOLD)
    folder = RESULTS / (re.sub(r"\W+", "_", faces.name) + f"_{faces.fingerprint[:8]}_{SECONDS:g}s_{SPLIT}")
    storage.make_folder(folder)
    storage.start_settings(folder, benchmark=training.constants(module), points=SETTINGS, data=faces.about(),
                           device=str(device), precision=precision)

    settings = {name: settings_of(name, faces, device, precision) for name in SETTINGS}
    missing = [(seed, name) for seed in range(FIRST_SEED, FIRST_SEED + SEEDS) for name in names
               if read_scores(folder / f"seed{seed}" / f"{name}.json", settings[name]) is None]
    of_seed = CLASSIFIER_SECONDS * len(faces.rows("train")) / 1000
    seconds = len(missing) * (SECONDS + VAE_OVERHEAD) + len({seed for seed, _ in missing}) * of_seed
    print(f"{faces.name}: {len(faces)} faces; {device}, {precision}")
    print(f"{len(names) * SEEDS - len(missing)} VAEs are done; {len(missing)} of {SECONDS:g} s, with their classifiers,"
          f" take about {seconds / 60:.0f} min on 2 cores")
    start, at_seed = time.perf_counter(), None
    try:
        for count, (seed, name) in enumerate(missing, 1):
            if seed != at_seed:
                metric, judge = make_judges(folder, faces, seed, device, precision)
                at_seed = seed
            try:
                scores = run_point(name, faces, metric, judge, seed, device, precision)
            except UserError as error:                          # a weight too high for it, say
                print(f"{name}, seed {seed}, is left out: {error}")
                continue
            storage.write_json(folder / f"seed{seed}" / f"{name}.json", dict(settings=settings[name], scores=scores))
            left = (time.perf_counter() - start) / count * (len(missing) - count) / 60
            shown = ", ".join(f"{key} {scores[key]:.3f}" for key in ("error", "spearman", "edit_success")
                              if key in scores)
            print(f"{count} of {len(missing)}, {name}, seed {seed}: {shown}; about {left:.0f} min left", flush=True)
    finally:                                                    # stopped, too, it shows what there is
        write_results(folder, faces, settings, device, precision)
    storage.finish_settings(folder)


# --- settings and files

@contextmanager
def constants_of(name):
    """Within it, metric_vae.run has the settings of a point, and scores skip their bootstrap: seeds are the spread."""
    with training.changed_constants(vae), training.changed_constants(evaluate, RESAMPLES=1):
        training.override(SETTINGS[name].split(), {"": vae})
        vae.check_settings()
        yield


def settings_of(name, faces, device, precision):
    """All that a point's result depends on, as JSON gives it back; name None: what the classifiers depend on."""
    settings = dict(fingerprint=faces.fingerprint, device=device.type, precision=precision,
                    classifier=training.constants(classifier), judge=judges.judge_settings())
    if name is not None:
        with constants_of(name):
            of_vae = training.constants(vae)
        settings |= dict(model=model_of(name), seconds=SECONDS, threads=torch.get_num_threads(),
                         edit_parts=("metric", "both"), split=SPLIT, sample=experiments.SAMPLE,
                         vae={k: v for k, v in of_vae.items() if k != "EPOCHS"})
    return json.loads(json.dumps(settings))


def model_of(name):
    """The point's name among vae.MODELS, which says whether it has a metric."""
    return "no_dist_reg" if name == "none" else "dist_reg"


def read_scores(path, settings):
    """The scores in a file of a point or of a seed's classifiers if these are its settings, else None."""
    stored = storage.read_json(path) if path.exists() else {}
    return stored["scores"] if stored.get("settings") == settings else None


# --- one seed and one point

def make_judges(folder, faces, seed, device, precision):
    """The metric and the judge (None without labelled held-out faces) of a seed, trained or read.

    Writes seedN/classifiers.json: their accuracies and the ceiling, how far two classifiers' distances agree.
    """
    path, trained = (folder / f"seed{seed}" / name for name in ("classifiers.json", "classifiers"))
    settings = settings_of(None, faces, device, precision)
    if read_scores(path, settings) is None:                     # other settings: none of these checkpoints will do
        shutil.rmtree(trained, ignore_errors=True)
        storage.make_folder(path.parent)
        storage.write_json(path, dict(settings=settings, scores={}))
    storage.make_folder(trained)                                # not there in a new checkout either
    C = classifier.train(faces, trained, seed, device, precision)
    labelled, rows = faces.rows(SPLIT, labelled=True), experiments.sample_rows(faces, SPLIT)
    judge = judges.train_judge(faces, trained, seed, device) if len(labelled) else None
    scores = {f"{name}_accuracy": classifier.measure_accuracy(model, faces, labelled, device) for name, model in
              (("classifier", C), ("judge", judge)) if model is not None and len(labelled)}
    with constants_of("none"):
        ceiling = experiments.measure_ceiling(C, faces, rows, trained, seed, device, precision)
    scores |= {f"ceiling_{name}": ceiling[name][0] for name in ("spearman", "stress") if name in ceiling}
    storage.write_json(path, dict(settings=settings, scores=scores))
    return run.metric_of(C), judge


def run_point(name, faces, metric, judge, seed, device, precision):
    """Train the VAE of a point for about SECONDS; returns its scores on held-out faces, one number each."""
    model_name = model_of(name)
    with constants_of(name), tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        rows = faces.rows("train", labelled=not vae.UNLABELLED)
        few = replace(faces, split=np.full(len(faces), -1))     # the others in no split
        few.split[rows[:WARM_UP]] = 0
        (scratch / "warm_up").mkdir()
        vae.EPOCHS = 2                                          # the first one is slower
        vae.train(model_name, few, metric, scratch / "warm_up", seed, device, precision)
        epoch = storage.read_log(scratch / "warm_up")[-1]["seconds"] * len(rows) / len(rows[:WARM_UP])
        vae.EPOCHS = max(1, round(SECONDS / epoch))
        model = vae.train(model_name, faces, metric, scratch, seed, device, precision)
        log = storage.read_log(scratch)
        rows = experiments.sample_rows(faces, SPLIT)
        scores = vae_scores.score_reconstructions(model, faces, faces.rows(SPLIT), device)
        latents = vae_scores.encode(model_name, model, faces, rows, device, "metric")
        d = vae_scores.given_distances(metric, faces, rows, device)
        scores |= evaluate.distance_scores(latents.distances(), d, faces.labels[rows])
        if judge is not None:
            whole = replace(latents, edit_dims=slice(None))     # the part counts that the judge believes more
            edits = [vae_scores.score_edits(part, judge, None, metric, faces, device) for part in (latents, whole)]
            scores |= max(edits, key=lambda of_part: of_part.get("edit_success", [0])[0])
    kept = {key: scores[key][0] for key in (*SCORES, "judge_on_faces", "judge_on_faces_balanced")
            if key in scores}
    return {**kept, "seconds": sum(line["seconds"] for line in log), "epochs": len(log)}


# --- all results

def write_results(folder, faces, settings, device, precision):
    """Write results.json, table.md and pareto.png of all points and seeds that were run with these settings."""
    classifiers, runs = {}, {}                                  # seed: scores; point: {seed: scores}
    for path in sorted(folder.glob("seed*"), key=lambda path: int(path.name[4:])):
        found = {name: read_scores(path / f"{name}.json", settings[name]) for name in SETTINGS}
        found = {name: scores for name, scores in found.items() if scores is not None}
        if found:
            seed = int(path.name[4:])
            of_seed = read_scores(path / "classifiers.json", settings_of(None, faces, device, precision))
            classifiers[seed] = of_seed or {}
        for name, scores in found.items():
            if "none" in found:
                scores = {**scores, "error_ratio": scores["error"] / found["none"]["error"]}
            runs.setdefault(name, {})[seed] = scores
    points = {name: spread(runs[name]) for name in SETTINGS if name in runs}
    ceilings = spread(classifiers)
    seeds = ", ".join(map(str, classifiers))
    seeds += " (of some points fewer)" * any(len(of_point) < len(classifiers) for of_point in runs.values())
    title = (f"{faces.name}, {len(faces.rows('train'))} training faces, scored on {len(faces.rows(SPLIT))} of the "
             f"{SPLIT} split; {SECONDS:g} s of training a VAE on {device.type} in {precision}, threads: "
             f"{torch.get_num_threads()}; seeds: {seeds}")
    storage.write_json(folder / "results.json", dict(
        title=title, data=faces.about(), seconds=SECONDS, classifiers=classifiers, ceilings=ceilings, settings=SETTINGS,
        seeds=runs, points=points))
    text = table(title, points, ceilings, {name: len(of_point) for name, of_point in runs.items()})
    storage.write_text(folder / "table.md", text)
    compared = {name: scores for name, scores in points.items() if "error_ratio" in scores}
    if compared:
        pareto(folder / "pareto.png", title + " (mean; bars: min to max)" * (len(classifiers) > 1), compared, ceilings,
               {name: style(name) for name in compared})
    else:
        print("no error ratios, no pareto.png: POINTS=none runs what they are relative to")
    print(f"{text}\nwrote the results to {folder}")


def spread(runs):
    """[mean, min, max] over seeds of each score; runs: {seed: scores}."""
    names = dict.fromkeys(name for scores in runs.values() for name in scores)
    values = {name: [scores[name] for scores in runs.values() if name in scores] for name in names}
    return {name: [float(np.mean(v)), min(v), max(v)] for name, v in values.items()}


def table(title, points, ceilings, counts):
    """The results in Markdown: a row a point, a column a score."""
    def text(scores, name, decimals=3):
        return "{:.{d}f} ({:.{d}f}..{:.{d}f})".format(*scores[name], d=decimals) if name in scores else ""
    lines = [f"{title}. Mean (min..max) over seeds.", "",
             f"Ceiling, another classifier's distances: Spearman {text(ceilings, 'ceiling_spearman')}, stress "
             f"{text(ceilings, 'ceiling_stress')}. Accuracy: classifier "
             f"{text(ceilings, 'classifier_accuracy')}, judge {text(ceilings, 'judge_accuracy')}.", "",
             "| | point | seeds | " + " | ".join(heading for heading, _ in SCORES.values()) + " |",
             "|---" * (len(SCORES) + 3) + "|"]
    for number, (name, scores) in enumerate(points.items(), 1):
        cells = [text(scores, key, decimals) for key, (_, decimals) in SCORES.items()]
        lines.append(f"| {number} | {name} | {counts[name]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def style(name):
    """How a point is drawn: its colour says whether it has consistency, its marker which are the three to look at."""
    with constants_of(name):
        consistent = max(vae.CONSISTENCY + vae.EDIT_CONSISTENCY) > 0
    colour = "#444444" if name == "none" else "#D55E00" if consistent else "#0072B2"       # Okabe and Ito's
    marker, size = MARKED.get(name, ("o", 6))
    return dict(color=colour, marker=marker, markersize=size, linestyle="none")


if __name__ == "__main__":
    training.run_script(main, "the same command goes on after the last point that is done")
