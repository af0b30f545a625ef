"""Scores and figures of a run, on held-out faces.

In: experiments/N/ written by run.py or by one of the packages. Out: its scores.json, figures/ and explorer.html.
python experiments.py, or for another run: python experiments.py RUN=3
"""
if __name__ == "__main__":      # first, as the imports below take seconds
    from training.stopping import listen
    listen()

import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

import run as main_script               # first: it makes sure that data and training are ours
import expr_classifier.figures as classifier_figures
import expr_classifier.run as classifier_script
import metric_vae.figures as vae_figures
import metric_vae.run as vae_script
from data import options as data_options
from data.faces import Faces
from data.figures import draw
from data.sources import load
from expr_classifier import judges, train as classifier
from metric_vae import explorer, gallery, portrait, scores as vae_scores, statistics, train as vae, trained
from metric_vae.metrics import load_metric
from metric_vae.space import load as load_space
from training import storage
from training.devices import choose_device, keep_memory
from training.errors import check_at_least, check_between, check_choice, check_seeds, run_script
from training.files import make_folder, write_atomically, write_json
from training.log import read_log
from training.settings import default_settings, parse_one

RUN: int | str = "last"     # the number of a run, the path of its folder, or "last", the newest that is finished
DATA: str | None = None     # where the faces of that run lie now, if they were moved; None: where they lay
SPLIT = "test"              # the held-out faces that are scored and drawn: "test", or "val" to choose settings by
PUBLISH = False             # also copy the README's figures to images/
SAMPLE = 600                # held-out faces at most for t-SNE, pair scores and edits; a random sample in which the
                            # classes keep their proportions
EXPLORER = True             # also write explorer.html: the faces, their distances, edits and samples, in a browser
SEED = 0                    # of that sample, of noise, prior samples, t-SNE and the faces that are shown
DEVICE = "auto"             # "auto", "cpu", "cuda", ...

# --- your own pictures, instead of the held-out faces
PICTURE: str | None = None  # path of a picture, or of two with a comma between: only their figure is drawn
CROP: str | None = None     # where the face is, left,top,right,bottom in pixels; for two pictures with a ; between.
                            # None: the largest face, where an opencv before version 5 is installed, else the middle

# --- samples
SAMPLES_FROM = "density"    # in figures: of Gaussians fitted to the training faces' latents, or "prior": of N(0, I)

# --- edits and interpolations
FROM: str | None = None     # the example shows edits and interpolations from this class
TO: str | None = None       # to this one. None: happy and sad if there are both, else the two largest classes
EDIT_PART = "metric"        # what edits move: the first vae.METRIC_DIMS of z ("metric"), the others ("rest"), or
                            # "both"; interpolations move all of z
STEPS = 10                  # of an interpolation, its ends included
SHOWN = 10                  # people or pairs in a figure
PATHS = 50                  # interpolations that are scored

# --- the networks that measure; their seeds are added to the run's
JUDGE_ARCHITECTURE = "judge"    # the judge of classes: one of expr_classifier/model.py; "none": edits get no scores
JUDGE_STEPS = 600               # batches, rounded to whole epochs
JUDGE_BATCH = 64                # faces
JUDGE_RATE = (2e-3, 1e-4)       # Adam's, at the first and the last step
JUDGE_SEED = 1000
SECOND_SEED = 500               # of a second classifier like the run's
IDENTITY_STEPS = 420            # batches, as above, of the network that tells people apart; 0: no such scores
IDENTITY_SEED = 1500

IMAGES = Path(__file__).parent / "images"
PUBLISHED = ("last.png", "shepard.png", "losses.png", "edits.png", "interpolate.png")  # and all figures of the two VAEs


def main(arguments):
    settings = parse_one(arguments, sys.modules[__name__])
    check_choice("SPLIT", settings.SPLIT, ("val", "test"))
    check_choice("SAMPLES_FROM", settings.SAMPLES_FROM, ("density", "prior"))
    check_choice("EDIT_PART", settings.EDIT_PART, ("both", "metric", "rest"))
    check_at_least(1, settings, "SAMPLE", "PATHS")
    check_between(1, 100, settings, "SHOWN")
    check_between(2, 1000, settings, "STEPS")
    check_seeds(settings, "SEED")
    judges.check_settings(settings)
    keep_memory()
    start = time.perf_counter()
    if settings.PICTURE is not None:
        draw_pictures(load_space(settings.RUN, device=settings.DEVICE), settings)
        return
    folder = storage.find_run(settings.RUN)
    run = open_run(folder, choose_device(settings.DEVICE), settings.DATA)
    vae_scores.pair_of(run.faces, settings.FROM, settings.TO)   # refuses unknown names before anything is drawn
    if not run.finished:
        print(f"warning: {folder} is not finished, and is analysed as far as it got")
    analyse(run, settings)
    if settings.PUBLISH:
        publish(folder / "figures")
    print(f"wrote scores.json and figures/ to {folder} in {time.perf_counter() - start:.0f} s")


def draw_pictures(space, settings):
    """Draw the figure of PICTURE in the run folder of a Space."""
    if settings.FROM or settings.TO:
        print("warning: FROM and TO have no effect with PICTURE, which is edited to every class")
    paths = list(map(str.strip, settings.PICTURE.split(",")))
    opened = portrait.open_pictures(paths, settings.CROP and settings.CROP.split(";"))
    make_folder(space.folder / "pictures")
    path = space.folder / "pictures" / ("_".join(Path(name).stem for name, *_ in opened) + ".png")
    portrait.draw(path, space, opened, settings.STEPS)
    print(f"wrote {path}")


@dataclass
class Run:
    """A run that is analysed: its folder and faces, its own seed and precision, the settings of the classifier and of
    the VAE, None where the run has none of it, the device of the analysis, and whether the run is finished.
    """
    folder: Path
    faces: Faces
    seed: int
    precision: str
    classifier: object
    vae: object
    device: torch.device
    finished: bool = True


def open_run(folder, device, data=None):
    """The Run in a folder; data: where its faces lie now, None: where they lay. Raises UserError where they are not
    those that the run saw.
    """
    scripts = {"": main_script, "classifier": classifier_script, "vae": vae_script, "faces": data_options}
    settings = storage.read_settings(folder, scripts)
    started = next(iter(settings.values()))                     # of the script that was started
    faces = load(data or started.DATA, started.IMAGE_SIZE, started.FOLD, started.SEED, settings["faces"])
    storage.check_same_data(folder, faces.about())
    return Run(folder, faces, started.SEED, storage.about_run(folder)["precision"],
               settings.get("classifier"), settings.get("vae"), device, storage.is_finished(folder))


def analyse(run, settings):
    """Write a run's scores.json, print it, then draw all figures; returns the scores. settings: this script's."""
    clock, faces, figures, drawings = Clock(), run.faces, run.folder / "figures", []
    shutil.rmtree(figures, ignore_errors=True)                  # none may stay that this run's faces no longer allow
    (run.folder / "explorer.html").unlink(missing_ok=True)
    make_folder(figures)
    held_out, rows = faces.rows(settings.SPLIT), sample_rows(faces, settings)
    print(f"{run.folder}: {faces.name}, {len(held_out)} faces of its {settings.SPLIT} split")
    if len(rows) < len(held_out):
        print(f"a sample of {len(rows)} of them for t-SNE, pair scores and edits")
    C = None
    if (run.folder / "classifier.pt").exists():
        C = classifier.load_classifier(run.folder / "classifier.pt", run.device)
    else:
        print("no classifier.pt in this run: without its figures")
    models = {name: trained.load_vae(run.folder, name, run.device) for name in vae.MODELS
              if (run.folder / f"{name}.pt").exists()}
    scores = {"split": settings.SPLIT, "settings": measuring(settings)} | ({} if run.finished else {"stopped": True})
    if C is not None:
        scores["classifier"] = analyse_classifier(C, faces, held_out, rows, figures, settings.SEED, run.device,
                                                  drawings)
        clock("classifier")
    if models:
        scores.update(analyse_vaes(models, C, run, settings, held_out, rows, clock, drawings))
    elif C is not None:
        drawings.append(partial(explore, C, run, settings, rows))
    if models and C is not None and run.vae.METRIC == "embeddings":
        scores["ceiling"] = measure_ceiling(C, run, settings, rows)
        clock("ceiling")
    stages = {stage: read_log(run.folder, stage) for stage in ("classifier", *vae.MODELS)}
    if any(stages.values()):
        drawings.append(partial(draw, vae_figures.losses, figures / "losses.png", stages))
    write_json(run.folder / "scores.json", scores)
    print_tables(scores)
    for drawing in drawings:
        drawing()
    clock("figures")
    print("\nseconds: " + ", ".join(f"{part} {seconds:.0f}" for part, seconds in clock.parts.items()))
    return scores


def measuring(settings):
    """The constants of this script that scores depend on, as JSON has them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()
            if name in ("SAMPLE", "SEED", "FROM", "TO", "EDIT_PART", "STEPS", "PATHS")
            or name.startswith(judges.CONSTANTS)}


def sample_rows(faces, settings):
    """The rows of the held-out faces for t-SNE, pair scores and edits: at most SAMPLE of the faces of SPLIT."""
    held_out = faces.rows(settings.SPLIT)
    return held_out[statistics.stratified_rows(faces.labels[held_out], settings.SAMPLE, settings.SEED)]


class Clock:
    """Seconds of each part: clock("name") ends a part."""

    def __init__(self):
        self.parts, self.last = {}, time.perf_counter()

    def __call__(self, part):
        now = time.perf_counter()
        self.parts[part], self.last = self.parts.get(part, 0) + now - self.last, now


# --- the classifier

def analyse_classifier(model, faces, held_out, rows, figures, seed, device, drawings):
    """The classifier's scores; adds to drawings the functions that draw its figures."""
    add = lambda function, name, *arguments: drawings.append(partial(draw, function, figures / name, *arguments))
    for name in ("last", "second_last", "softmax"):
        points = classifier.layer_of(model, faces, rows, device, name)
        add(classifier_figures.layer_map, f"{name}.png", name, points, faces.labels[rows], faces.classes, seed)
    labelled = held_out[faces.labels[held_out] >= 0]
    if len(labelled) == 0:
        print("no labelled held-out faces: no accuracy, no confusion.png, ordered.png and intensities.png")
        return {}
    labels, softmax = faces.labels[labelled], classifier.layer_of(model, faces, labelled, device, "softmax")
    add(classifier_figures.ordered, "ordered.png", faces.images[labelled], softmax, labels, faces.classes)
    add(classifier_figures.intensities, "intensities.png", softmax, labels, faces.classes)
    add(classifier_figures.confusion, "confusion.png", labels, softmax.argmax(1), faces.classes)
    return {"accuracy": statistics.accuracy(softmax, labels)}


def measure_ceiling(C, run, settings, rows):
    """How well the distances of a second classifier, like C but from another seed, follow those of C.

    A VAE with better scores than these also reproduces C's idiosyncrasies.
    """
    second = judges.train_network("second", run.faces, run.classifier, run.folder, run.seed + settings.SECOND_SEED,
                                  run.device, run.precision)
    if second is None:
        return {}
    metrics = (main_script.metric_of(model, run.classifier.LAYER, run.vae.METRIC_NORM) for model in (second, C))
    e, d = (trained.given_distances(metric, run.faces, rows, run.device) for metric in metrics)
    return statistics.distance_scores(e, d, run.faces.labels[rows])


# --- the VAEs

def given_metric(C, run):
    """The metric of a run: that of its classifier C, or if that is None, its embeddings, or what METRIC names."""
    if run.vae.METRIC == "embeddings" and C is not None:
        return main_script.metric_of(C, run.classifier.LAYER, run.vae.METRIC_NORM)
    if run.vae.METRIC == "embeddings":
        return load_metric(run.folder / "embeddings.npy", run.faces, run.device, run.vae.METRIC_NORM, "points")
    return load_metric(run.vae.METRIC, run.faces, run.device, run.vae.METRIC_NORM, run.vae.METRIC_KIND)


def analyse_vaes(models, C, run, settings, held_out, rows, clock, drawings):
    """The scores of the VAEs and those of the controls; adds to drawings the functions that draw their figures."""
    faces, device, figures = run.faces, run.device, run.folder / "figures"
    judge = identifier = None
    if (faces.labels[rows] >= 0).any():
        defaults = default_settings(classifier_script)
        judge = judges.train_judge(faces, settings, defaults, run.folder, run.seed, device, run.precision)
        clock("judge")
        if judge is not None:
            identifier = judges.train_identifier(faces, settings, defaults, run.folder, run.seed, device,
                                                 run.precision)
            clock("identity network")
    metric, pair = given_metric(C, run), vae_scores.pair_of(faces, settings.FROM, settings.TO)
    if run.vae.METRIC == "labels":                              # it is not defined for unlabelled faces
        rows = rows[faces.labels[rows] >= 0]
        if not len(rows):
            print("METRIC=labels, and no labelled held-out faces: no scores and figures of the VAEs")
            return {}
    labels = faces.labels[rows]
    d = trained.given_distances(metric, faces, rows, device)
    i, j = given_pairs(d)
    others = np.random.default_rng(settings.SEED).permutation(len(rows))
    controls = {"pixels": statistics.euclidean(faces.images[rows] / 255), "shuffled": d[others][:, others]}
    scores = {"controls": {name: {} for name in controls}}
    panels, both = {}, []
    for name, model in models.items():
        summary = summary_of(model, name, run, metric)
        latents = vae_scores.latents_of(name, model, faces, rows, device, summary, settings.EDIT_PART)
        scores[name] = vae_scores.score_reconstructions(model, faces, held_out, device, settings.SEED)
        e = latents.distances()
        scores[name].update(statistics.distance_scores(e, d, labels))
        scores[name].update(statistics.finite({"knn_accuracy": statistics.knn_accuracy(e, labels)}))
        if len(i) > 2:
            panels[name] = (e[i, j], d[i, j])
        clock(f"{name} scores")
        for control, given in controls.items():
            found = statistics.distance_scores(e, given, labels, resamples=1)
            scores["controls"][control][name] = {score: value for score, (value, _, _) in found.items()}
        clock("controls")
        if judge is not None:
            scores[name].update(vae_scores.score_edits(latents, judge, identifier, metric, faces, device, pair,
                                                       settings.STEPS, settings.PATHS, settings.SEED))
            clock(f"{name} edits")
        drawings.append(partial(gallery.draw_vae, latents, faces, pair, settings, figures / name))
        both.append(latents)
    drawings.append(partial(gallery.draw_both, figures, both, faces, pair, settings))
    if panels:
        drawings.append(partial(draw, vae_figures.shepard, figures / "shepard.png", panels,
                                metric_name(run.vae.METRIC)))
    drawings.append(partial(explore, C, run, settings, rows, both, models, d))
    return scores


def given_pairs(d):
    """The places i < j of the pairs whose distance d (n, n) is given, not NaN; says so where that is not all."""
    i, j = np.triu_indices(len(d), 1)
    given = np.isfinite(d[i, j])
    if not given.all():
        print(f"METRIC gives {given.sum()} of the {len(i)} distances between these faces: scores and shepard.png are "
              "of these pairs, if they are enough; trustworthiness and continuity need all, and are left out")
    return i[given], j[given]


def summary_of(model, name, run, metric):
    """The Summary of a VAE's latents. That of a run that is not finished is not kept: training may go on."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = run.folder if run.finished else Path(scratch)
        return trained.summarize(model, name, run.faces, metric, vae.training_rows(run.faces, run.vae), folder,
                                 run.seed, run.device)


def explore(C, run, settings, rows, latents=(), models=None, d=None):
    """Write explorer.html, if EXPLORER; latents: of these rows in each of models, d: their given distances."""
    if not settings.EXPLORER:
        return
    path = run.folder / "explorer.html"
    last = None if C is None else classifier.layer_of(C, run.faces, rows, run.device, "last")
    title = f"{run.faces.name}: {settings.SPLIT} faces of run {run.folder.name}"
    metric = metric_name(run.vae.METRIC) if latents else ""
    draw(explorer.write, path, title, run.faces, rows, latents, models, d, metric, last, settings.SAMPLES_FROM,
         settings.SEED)
    if path.exists():
        print(f"to be opened in a browser: {path}")


def metric_name(metric):
    """What the given distance is, for an axis; metric: METRIC."""
    return "d_D = ||C(x1) - C(x2)||" if metric == "embeddings" else f"METRIC={Path(metric).name}"


# --- what is printed and published

def print_tables(scores):
    """Print the scores of both models side by side, then those of the controls."""
    models = [name for name in vae.MODELS if name in scores]
    faces = f"faces of the {scores['split']} split"
    if "classifier" in scores and scores["classifier"]:
        print_table(f"classifier, {faces}", {"classifier": scores["classifier"]})
    print_table(f"VAEs, {faces}", {name: scores[name] for name in models})
    if scores.get("ceiling"):
        print_table("ceiling: distances of a second classifier", {"second classifier": scores["ceiling"]})
    print_table("controls: the same latents against other distances", {
        f"{control}: {name}": of_models[name] for control, of_models in scores.get("controls", {}).items()
        for name in of_models})


def print_table(title, columns):
    """Print scores, a row a score and a column a dict of them, each with its 95 % interval if it has one."""
    if not columns:
        return

    def number(value):
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"

    def text(value):
        if isinstance(value, list):
            return "{} [{}, {}]".format(*map(number, value))
        return "" if value is None else number(value)
    width = max(26, *(len(name) + 2 for name in columns))
    print(f"\n{title}\n{'':30}" + "".join(f"{name:>{width}}" for name in columns))
    for score in dict.fromkeys(score for column in columns.values() for score in column):
        print(f"{score:30}" + "".join(f"{text(column.get(score)):>{width}}" for column in columns.values()))


def publish(figures):
    """Copy the README's figures to images/."""
    for path in [*(figures / name for name in PUBLISHED), *figures.glob("*/*.png")]:
        place = IMAGES / path.relative_to(figures)
        make_folder(place.parent)
        if path.exists():
            write_atomically(place, lambda file: file.write(path.read_bytes()))
    print(f"copied the figures to {IMAGES}")


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
