"""Compares metrics, regularisers, weights and other models after equally many training steps, on held-out faces.

In: faces (DATA). Out: benchmarks/results/<data>_<fingerprint>_<split>/: table.md, summary.md, results.json, pareto.png.
python benchmarks/regularizers.py, or some points alone: POINTS=none,ours. Started again, it continues where it stopped.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import experiments                                              # noqa: E402, after the path
import expr_classifier.judges as judges                         # noqa: E402
import expr_classifier.run as classifier                        # noqa: E402
import metric_vae.run as vae                                    # noqa: E402
import run                                                      # noqa: E402
import training                                                 # noqa: E402
from benchmarks import baselines                                # noqa: E402
from benchmarks.pareto import pareto, steps                     # noqa: E402
from data.faces import load                                     # noqa: E402
from metric_vae import evaluate, scores as vae_scores           # noqa: E402
from metric_vae.metrics import load_metric                      # noqa: E402
from training import UserError, storage                         # noqa: E402

# --- what is compared
DATA = "synthetic"          # "auto", "synthetic", "tfd", "fer2013" or a path: see data/README.md
IMAGE_SIZE = 48             # pixels
FOLD = 0                    # 0..4, of TFD's five
TRAINING_FACES: int | None = None       # train on so many faces only, the first ones, and on all faces of each person
SPLIT = "val"               # the held-out faces that are scored: "val" to choose settings by, on seeds 0, 1 and 2;
                            # "test" to report them, on seeds 3 to 7: SPLIT=test SEEDS=3,4,5,6,7
SEEDS = "0,1,2"             # of classifier, judge and VAE, with commas between; the faces and their split are the same
POINTS = "all"              # names of SETTINGS with commas between, or "all"
DEVICE = "auto"             # "auto", "cpu", "cuda", ...
PRECISION = "auto"          # "auto", "fp32", "bf16"

# --- the points: a name, and what it sets in metric_vae/run.py. METRIC is the classifier's, as in run.py, or "table":
# --- its embeddings as points without pixels, or "matrix": the distances of all pairs of these
ALONE = "CONSISTENCY=0 "
WHOLE = "METRIC_DIMS=None "
SETTINGS = {
    "none": "",                                                 # without a metric: no_dist_reg
    "ours": "",
    "table": "METRIC=table",
    "matrix": "METRIC=matrix",
    "action_units": "METRIC=action_units",                      # of synthetic faces
    "conditional_vae": "",                                      # benchmarks/baselines.py
    "csvae": "",
    "reference": " ".join(s.removeprefix("vae.") for s in run.REFERENCE if s.startswith("vae.")),
    "whole_z": WHOLE,
    "alone": ALONE,
    "whole_z_alone": WHOLE + ALONE,
}
for _name, _beta in (("local_stress", 1000), ("correlation", 1000), ("log_ratio", 300), ("triplet", 1000),
                     ("batchwise", 1e5), ("pointwise", 1), ("expanding_pointwise", 1), ("contracting_pointwise", 1)):
    SETTINGS[_name] = f"REGULARIZER={_name} BETA={_beta:g}"
    SETTINGS[f"{_name}_alone"] = ALONE + SETTINGS[_name]
LONGER = (1, 4, 16)         # times the usual steps, in steps.png
for _times in LONGER[1:]:
    SETTINGS |= {f"{_name}_x{_times}": f"STEPS={_times * vae.STEPS}" for _name in ("none", "ours")}

RESULTS = Path(__file__).parent / "results"
SCORES = {                  # the table's columns: heading, decimals
    "error": ("error", 2), "error_ratio": ("error ratio", 3), "kl": ("KL", 0), "spearman": ("Spearman", 3),
    "stress": ("stress", 3), "knn_accuracy": ("kNN", 3), "judge_on_reconstructions": ("judge on reconstructions", 3),
    "edit_success": ("edit success", 3), "edit_share": ("/ judge on faces", 2), "identity_kept": ("identity kept", 3),
    "identity_share": ("/ on faces", 2), "edit_error_to_truth": ("edit error to truth", 2),
    "high_frequencies": ("fine texture", 2), "high_frequencies_of_edits": ("of edits", 2), "frechet": ("Frechet", 0),
    "frechet_prior": ("Frechet, N(0, I)", 0), "seconds": ("seconds", 0), "epochs": ("epochs", 0)}
BASELINES = {"conditional_vae": "cvae", "csvae": "csvae"}       # point: its name in benchmarks/baselines.py
SUMMARY = {                 # the columns of summary.md, which the README shows
    "none": "no regulariser", "ours": "with the regulariser", "table": "the same, `METRIC` a table of points",
    "conditional_vae": "conditional VAE", "csvae": "CSVAE"}
SUMMARY_SCORES = {          # its rows
    "error": "squared error, summed over pixels", "error_ratio": "the same, no regulariser = 1",
    "spearman": "Spearman, latent and given distances", "stress": "Kruskal stress",
    "edit_success": "edits recognised as the target expression", "edit_share": "the same, real faces = 1",
    "identity_share": "edits recognised as the same person, real faces = 1",
    "edit_error_to_truth": "error of edits to the true face, reconstructions = 1",
    "frechet": "Frechet distance of samples"}
MARKED = {"none": ("s", 8), "ours": ("*", 14), "reference": ("D", 8), "conditional_vae": ("^", 8),
          "csvae": ("v", 8)}                                    # in the figure: marker and its size


def main():
    module = sys.modules[__name__]
    training.override(sys.argv[1:], {"": module})
    names = list(SETTINGS) if POINTS == "all" else POINTS.split(",")
    for name in names:
        training.check_choice("POINTS", name, SETTINGS)
    training.check_choice("SPLIT", SPLIT, ("val", "test"))
    if not re.fullmatch(r"\d+(,\d+)*", SEEDS):
        raise UserError(f"SEEDS={SEEDS}", "whole numbers with commas between", repr(SEEDS), "SEEDS=0,1,2")
    device = training.choose_device(DEVICE)
    precision = training.choose_precision(PRECISION, device)
    faces = load(DATA, IMAGE_SIZE, FOLD)
    if TRAINING_FACES is not None:
        faces = fewer(faces, TRAINING_FACES)
    if faces.factors is None:
        names = [name for name in names if name != "action_units" or POINTS != "all"]
    count = f"_{TRAINING_FACES}_faces" if TRAINING_FACES else ""
    folder = RESULTS / (re.sub(r"\W+", "_", faces.name) + f"_{faces.fingerprint[:8]}{count}_{SPLIT}")
    storage.make_folder(folder)
    storage.start_settings(folder, benchmark=training.constants(module), points=SETTINGS, data=faces.about(),
                           device=str(device), precision=precision)

    settings = {name: settings_of(name, faces, device, precision) for name in SETTINGS}
    missing = [(seed, name) for seed in map(int, SEEDS.split(",")) for name in names
               if read_scores(folder / f"seed{seed}" / f"{name}.json", settings[name]) is None]
    print(f"{faces.name}: {len(faces)} faces; {device}, {precision}; {len(missing)} models to train")
    start, at_seed = time.perf_counter(), None
    try:
        for count, (seed, name) in enumerate(missing, 1):
            if seed != at_seed:
                networks = make_networks(folder, faces, seed, device, precision)
                at_seed = seed
            try:
                scores = run_point(name, faces, *networks, folder / f"seed{seed}" / "classifiers", seed, device,
                                   precision)
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


def fewer(faces, count):
    """The faces with the first training faces alone, at least count of them, those of a known person all or none."""
    rows = faces.rows("train")
    units = np.where(faces.identities >= 0, faces.identities, -2 - np.arange(len(faces)))[rows]
    kept = np.isin(units, units[:1])
    for unit in dict.fromkeys(units.tolist()):
        if kept.sum() >= count:
            break
        kept |= units == unit
    split = faces.split.copy()
    split[rows[~kept]] = -1
    return replace(faces, split=split)


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
    settings = dict(fingerprint=faces.fingerprint, device=device.type, precision=precision, split=SPLIT,
                    classifier=training.constants(classifier), judges=training.constants(judges))
    if name is not None:
        with constants_of(name):
            settings |= dict(model=model_of(name), sample=experiments.SAMPLE, vae=training.constants(vae))
        if name in BASELINES:
            settings |= dict(baselines=training.constants(baselines))
    return json.loads(json.dumps(settings))


def model_of(name):
    """The point's name among vae.MODELS, which says whether it has a metric, or that of a baseline."""
    return BASELINES.get(name, "no_dist_reg" if name.startswith("none") else "dist_reg")


def read_scores(path, settings):
    """The scores in a file of a point or of a seed's classifiers if these are its settings, else None."""
    stored = storage.read_json(path) if path.exists() else {}
    return stored["scores"] if stored.get("settings") == settings else None


# --- one seed and one point

def make_networks(folder, faces, seed, device, precision):
    """The classifier of a seed, and its judge and identity network (None without labels or people), trained or read.

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
    classifier.write_embeddings(C, faces, trained, device)
    labelled, rows = faces.rows(SPLIT, labelled=True), experiments.sample_rows(faces, SPLIT)
    judge = judges.train_judge(faces, trained, seed, device) if len(labelled) else None
    identifier = judges.train_identifier(faces, trained, seed, device) if judge is not None else None
    scores = {f"{name}_accuracy": classifier.measure_accuracy(model, faces, labelled, device) for name, model in
              (("classifier", C), ("judge", judge)) if model is not None and len(labelled)}
    with constants_of("none"):
        ceiling = experiments.measure_ceiling(C, faces, rows, trained, seed, device, precision)
    scores |= {f"ceiling_{name}": ceiling[name][0] for name in ("spearman", "stress") if name in ceiling}
    storage.write_json(path, dict(settings=settings, scores=scores))
    return C, judge, identifier


def metric_of(C, trained, faces, device):
    """The metric that vae.METRIC names: that of the classifier C, its table or matrix, or one of load_metric."""
    if vae.METRIC == "embeddings":
        return run.metric_of(C)
    embeddings = trained / "embeddings.npy"
    if vae.METRIC == "table":
        return load_metric(embeddings, faces, device, vae.METRIC_NORM)
    if vae.METRIC == "matrix":
        np.save(trained / "matrix.npy", evaluate.euclidean(np.load(embeddings)).astype(np.float32))
        return load_metric(trained / "matrix.npy", faces, device)
    return load_metric(vae.METRIC, faces, device, vae.METRIC_NORM)


def run_point(name, faces, C, judge, identifier, trained, seed, device, precision):
    """Train the model of a point; returns its scores on held-out faces, one number each.

    C, judge, identifier: the networks of the seed, trained: their folder.
    """
    with constants_of(name), tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        if name in BASELINES:
            model = baselines.train_named(model_of(name), faces, seed, device, precision)
            seconds = time.perf_counter() - start
            scores = baselines.score(model, faces, SPLIT, judge, identifier, device, experiments.SAMPLE)
            more = dict(seconds=seconds)
        else:
            metric = metric_of(C, trained, faces, device)
            model = vae.train(model_of(name), faces, metric, Path(scratch), seed, device, precision)
            log = storage.read_log(Path(scratch))
            more = dict(seconds=sum(line["seconds"] for line in log), epochs=len(log))
            scores = score(name, model, metric, faces, judge, identifier, Path(scratch), seed, device)
    scores = {key: of[0] if isinstance(of, list) else of for key, of in scores.items()}
    for share, part, whole in (("edit_share", "edit_success", "judge_on_faces_balanced"),
                               ("identity_share", "identity_kept", "identity_on_faces")):
        if part in scores and scores[whole] > 0:
            scores[share] = scores[part] / scores[whole]
    return scores | more


def score(name, model, metric, faces, judge, identifier, folder, seed, device):
    """The scores of a trained VAE, as experiments.py has them; edits move the metric part of z, of none all of it."""
    rows = experiments.sample_rows(faces, SPLIT)
    scores = vae_scores.score_reconstructions(model, faces, faces.rows(SPLIT), device)
    density = vae.latent_density(model, model_of(name), faces, folder, seed, device)
    latents = vae_scores.encode(model_of(name), model, faces, rows, device, "metric", density)
    e, d = latents.distances(), vae_scores.given_distances(metric, faces, rows, device)
    scores |= evaluate.distance_scores(e, d, latents.labels)
    scores["knn_accuracy"] = evaluate.knn_accuracy(e, latents.labels)
    if judge is not None:
        scores |= vae_scores.score_edits(latents, judge, identifier, metric, faces, device)
    return evaluate.finite(scores)


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
            none = "none" + (re.search(r"_x\d+$", name) or [""])[0]                # after as many steps
            if none in found:
                scores = {**scores, "error_ratio": scores["error"] / found[none]["error"]}
            runs.setdefault(name, {})[seed] = scores
    points = {name: spread(runs[name]) for name in SETTINGS if name in runs}
    ceilings = spread(classifiers)
    seeds = ", ".join(map(str, classifiers))
    seeds += " (of some points fewer)" * any(len(of_point) < len(classifiers) for of_point in runs.values())
    title = (f"{faces.name}, {len(faces.rows('train'))} training faces, scored on {len(faces.rows(SPLIT))} of the "
             f"{SPLIT} split; {vae.STEPS} steps of {vae.BATCH} faces on {device.type} in {precision}; seeds: {seeds}")
    storage.write_json(folder / "results.json", dict(
        title=title, data=faces.about(), classifiers=classifiers, ceilings=ceilings, settings=SETTINGS,
        seeds=runs, points=points))
    text = table(title, points, ceilings, {name: len(of_point) for name, of_point in runs.items()})
    storage.write_text(folder / "table.md", text)
    storage.write_text(folder / "summary.md", summary(title, points, ceilings))
    compared = {name: scores for name, scores in points.items() if "error_ratio" in scores}
    if compared:
        pareto(folder / "pareto.png", title + " (mean; bars: min to max)" * (len(classifiers) > 1), compared, ceilings,
               {name: style(name) for name in compared})
    else:
        print("no error ratios, no pareto.png: POINTS=none runs what they are relative to")
    curves = {model: {times * vae.STEPS: points[f"{model}_x{times}" if times > 1 else model] for times in LONGER
                      if (f"{model}_x{times}" if times > 1 else model) in points} for model in ("none", "ours")}
    if len(curves["ours"]) > 1:
        steps(folder / "steps.png", title, curves, ceilings)
    print(f"{text}\nwrote the results to {folder}")


def spread(runs):
    """[mean, min, max] over seeds of each score; runs: {seed: scores}."""
    names = dict.fromkeys(name for scores in runs.values() for name in scores)
    values = {name: [scores[name] for scores in runs.values() if name in scores] for name in names}
    return {name: [float(np.mean(v)), min(v), max(v)] for name, v in values.items()}


def cell(scores, name):
    """mean (min..max) of a score, or nothing."""
    if name not in scores:
        return ""
    _, decimals = SCORES.get(name, (name, 3))
    return "{:.{d}f} ({:.{d}f}..{:.{d}f})".format(*scores[name], d=decimals)


def table(title, points, ceilings, counts):
    """The results in Markdown: a row a point, a column a score."""
    lines = [f"{title}. Mean (min..max) over seeds.", "",
             f"Distances of a second classifier: Spearman {cell(ceilings, 'ceiling_spearman')}, stress "
             f"{cell(ceilings, 'ceiling_stress')}. Accuracy: classifier {cell(ceilings, 'classifier_accuracy')}, judge "
             f"{cell(ceilings, 'judge_accuracy')}.", "",
             "| | point | seeds | " + " | ".join(heading for heading, _ in SCORES.values()) + " |",
             "|---" * (len(SCORES) + 3) + "|"]
    for number, (name, scores) in enumerate(points.items(), 1):
        cells = [cell(scores, key) for key in SCORES]
        lines.append(f"| {number} | {name} | {counts[name]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def summary(title, points, ceilings):
    """The points and scores of SUMMARY in Markdown: a row a score, a column a point; mean (min..max)."""
    shown = [name for name in SUMMARY if name in points]
    lines = [f"{title}. Mean (min..max) over seeds.", "",
             "| | " + " | ".join(SUMMARY[name] for name in shown) + " | a second classifier |",
             "|---" * (len(shown) + 2) + "|"]
    for score, what in SUMMARY_SCORES.items():
        cells = [cell(points[name], score) for name in shown] + [cell(ceilings, f"ceiling_{score}")]
        if any(cells):
            lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def style(name):
    """How a point is drawn: its colour says whether it has consistency, its marker which are those to look at."""
    with constants_of(name):
        consistent = max(vae.CONSISTENCY) > 0
    other = model_of(name) != "dist_reg"
    colour = "#444444" if other else "#D55E00" if consistent else "#0072B2"        # Okabe and Ito's
    marker, size = MARKED.get(name, ("o", 6))
    return dict(color=colour, marker=marker, markersize=size, linestyle="none")


if __name__ == "__main__":
    training.run_script(main, "the same command goes on after the last point that is done")
