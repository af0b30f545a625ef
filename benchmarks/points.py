"""A point of benchmarks/regularizers.py: the networks of a seed that judge it, its training and its scores.

In: a Bench. Out: seedN/classifiers/ with these networks, seedN/classifiers.json, and the scores of a point as a dict.
"""
import hashlib
import json
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LinearRegression

import experiments
import metric_vae.run as vae_script
import run
from benchmarks import baselines
from data.faces import Faces
from expr_classifier import judges, train as classifier
from metric_vae import scores as vae_scores, statistics, train as vae, trained
from metric_vae.metrics import load_metric
from training.files import make_folder, read_json, write_json
from training.log import read_log
from training.settings import default_settings, parse_one

BASELINE_SETTINGS = ("LABEL_SCALE", "W_DIM", "W_MEAN", "W_KL", "ADVERSARY", "ADVERSARY_WIDTH", "ADVERSARY_STEPS")
BASELINES = {"conditional_vae": "cvae", "conditional_vae_joined": "cvae_joined", "csvae": "csvae",
             "csvae_joined": "csvae_joined"}                    # point: its name in benchmarks/baselines.py


@dataclass(frozen=True)
class Bench:
    """What all points share. settings: those of benchmarks/regularizers.py; points: what each point sets in
    metric_vae/run.py; sample: the settings of experiments.py; classifier: those of expr_classifier/run.py.
    """
    faces: Faces
    folder: Path
    settings: object
    points: dict
    sample: object
    classifier: object
    device: torch.device
    precision: str

    def vae_settings(self, name):
        """The settings of metric_vae/run.py with those of a point."""
        settings = parse_one(self.points[name].split(), vae_script)
        vae.check_settings(settings)
        return settings

    def classifiers_of(self, seed):
        """The folder of a seed's classifier, judge and identity network."""
        return self.folder / f"seed{seed}" / "classifiers"

    def identity_of(self, name):
        """All that a point's result depends on, as JSON gives it back; name None: what the classifiers depend on."""
        def constants_of(settings):                             # without those of which run.py has its own
            return {key: value for key, value in asdict(settings).items() if not hasattr(run, key)}
        of_judges = {key: value for key, value in asdict(self.sample).items()
                     if key.startswith(judges.CONSTANTS)}
        identity = dict(fingerprint=self.faces.fingerprint, device=self.device.type, precision=self.precision,
                        split=self.settings.SPLIT, classifier=constants_of(self.classifier), judges=of_judges)
        if name is not None:
            identity |= dict(model=model_of(name), sample=self.sample.SAMPLE, vae=constants_of(self.vae_settings(name)))
        if name in BASELINES:
            of_script = asdict(self.settings)
            identity |= dict(baselines={key: of_script[key] for key in BASELINE_SETTINGS})
        return json.loads(json.dumps(identity))


def model_of(name):
    """The point's name among vae.MODELS, which says whether it has a metric, or that of a baseline."""
    return BASELINES.get(name, "no_dist_reg" if name.startswith("none") else "dist_reg")


def read_result(path, identity):
    """What a file of a point or of a seed's classifiers holds, if it is of this identity, else an empty dict."""
    stored = read_json(path) if path.exists() else {}
    return stored if stored.get("settings") == identity else {}


def read_points(bench, seed, names):
    """The scores of the points of a seed, {name: scores}, and the names of those that other networks judged. Names of
    which there is no result are in neither.

    On another processor training rounds otherwise, so the judge becomes another one, which finds other edits right.
    """
    networks = read_result(bench.classifiers_of(seed).with_suffix(".json"), bench.identity_of(None)).get("networks")
    results = {name: read_result(bench.folder / f"seed{seed}" / f"{name}.json", bench.identity_of(name))
               for name in names}
    stale = [name for name, result in results.items()
             if result and (networks is None or result.get("networks") != networks)]
    return {name: result["scores"] for name, result in results.items() if result and name not in stale}, stale


def fingerprint(networks):
    """A hexadecimal digest of the weights of networks; those that are None are left out."""
    digest = hashlib.sha256()
    for network in filter(None, networks):
        for tensor in network.state_dict().values():
            digest.update(tensor.cpu().contiguous().numpy())
    return digest.hexdigest()[:16]


def make_networks(bench, seed):
    """The classifier of a seed, and its judge and identity network (None without labels or people), trained or read.

    Writes seedN/classifiers.json: their fingerprint, their accuracies and the ceiling, how far two classifiers'
    distances agree.
    """
    faces, device, precision = bench.faces, bench.device, bench.precision
    place = bench.classifiers_of(seed)
    path = place.with_suffix(".json")
    identity = bench.identity_of(None)
    if not read_result(path, identity):                         # other settings: none of these checkpoints will do
        shutil.rmtree(place, ignore_errors=True)
        make_folder(path.parent)
        write_json(path, dict(settings=identity, scores={}))
    make_folder(place)                                          # not there in a new checkout either
    C = classifier.train(faces, bench.classifier, place, seed, device, precision)
    embeddings = classifier.write_embeddings(C, faces, bench.classifier.LAYER, place, device)
    labelled, rows = faces.rows(bench.settings.SPLIT, labelled=True), experiments.sample_rows(faces, bench.sample)
    judge = identifier = None
    if len(labelled):
        judge = judges.train_judge(faces, bench.sample, bench.classifier, place, seed, device, precision)
    if judge is not None:
        identifier = judges.train_identifier(faces, bench.sample, bench.classifier, place, seed, device,
                                             precision)
    scores = {}
    if len(labelled):
        scores["classifier_accuracy"] = classifier.measure_accuracy(C, faces, labelled, device)
    if judge is not None:
        seen = rows[faces.labels[rows] >= 0]                    # those that are edited
        softmax = classifier.layer_of(judge, faces, seen, device, "softmax")
        scores["judge_accuracy"] = statistics.balanced_accuracy(softmax, faces.labels[seen])[0]
        scores["unchanged_success"] = (1 - scores["judge_accuracy"]) / (len(faces.classes) - 1)
    of_run = experiments.Run(place, faces, seed, precision, bench.classifier, default_settings(vae_script), device)
    ceiling = experiments.measure_ceiling(C, of_run, bench.sample, rows)
    scores |= {f"ceiling_{name}": of[0] for name, of in ceiling.items()}
    scores |= {f"classes_{name}": of[0] for name, of in of_class_means(embeddings, faces, rows).items()}
    networks = C, judge, identifier
    write_json(path, dict(settings=identity, networks=fingerprint(networks), scores=scores))
    return networks


def of_class_means(embeddings, faces, rows):
    """The scores of the distances between the mean embeddings of the faces' true classes, over the training faces: what
    of the metric between these rows is only their class. embeddings (N, k): of all faces.
    """
    train, rows = faces.rows("train", labelled=True), rows[faces.labels[rows] >= 0]
    labels = faces.labels[rows]
    means = statistics.class_means(embeddings[train], faces.labels[train], len(faces.classes))
    e, d = statistics.euclidean(means[labels]), statistics.euclidean(embeddings[rows])
    return statistics.distance_scores(e, d, labels, resamples=1)


def metric_of(bench, settings, C, place):
    """The metric that METRIC of a point's settings names: that of the classifier C, its table or matrix, in the folder
    place, or one of load_metric.
    """
    norm, embeddings, matrix = settings.METRIC_NORM, place / "embeddings.npy", place / "matrix.npy"
    if settings.METRIC == "embeddings":
        return run.metric_of(C, bench.classifier.LAYER, norm)
    if settings.METRIC == "matrix":
        np.save(matrix, statistics.euclidean(np.load(embeddings, allow_pickle=False)).astype(np.float32))
    path = {"table": embeddings, "matrix": matrix}.get(settings.METRIC, settings.METRIC)
    return load_metric(path, bench.faces, bench.device, norm, settings.METRIC_KIND)


def run_point(bench, name, networks, seed):
    """Train the model of a point; returns its scores on held-out faces, one number each.

    networks: the classifier, judge and identity network of the seed.
    """
    C, judge, identifier = networks
    faces, device, settings, start = bench.faces, bench.device, bench.vae_settings(name), time.perf_counter()
    if name in BASELINES:
        model = baselines.train_named(model_of(name), faces, settings, bench.settings, seed, device, bench.precision)
        more = dict(seconds=time.perf_counter() - start)
        scores = baselines.score(model, faces, experiments.sample_rows(faces, bench.sample),
                                 faces.rows(bench.settings.SPLIT, labelled=True), judge, identifier, device)
    else:
        place = bench.classifiers_of(seed)
        metric = metric_of(bench, settings, C, place)
        with tempfile.TemporaryDirectory() as scratch:
            model = vae.train(model_of(name), faces, metric, settings, Path(scratch), seed, device, bench.precision)
            log = read_log(Path(scratch))
            summary = trained.load_summary(Path(scratch) / f"{model_of(name)}_latents.npz")
        more = dict(seconds=sum(line["seconds"] for line in log), epochs=len(log))
        scores = score(bench, name, model, summary, metric, judge, identifier)
        if name == "none":
            embeddings = np.load(place / "embeddings.npy", allow_pickle=False)
            scores |= {f"probe_{key}": of for key, of in probe(bench, model, embeddings).items()}
    scores = {key: of[0] if isinstance(of, list) else of for key, of in scores.items()}
    for share, part, whole in (("edit_share", "edit_success", "judge_on_faces_balanced"),
                               ("identity_share", "identity_kept", "identity_on_faces")):
        if part in scores and scores[whole] > 0:
            scores[share] = scores[part] / scores[whole]
    return scores | more


def score(bench, name, model, summary, metric, judge, identifier):
    """The scores of a trained VAE, as experiments.py has them; edits move the metric part of z, of none all of it.

    Without a bootstrap of the scores of pairs: the spread is that of the seeds.
    """
    faces, device, rows = bench.faces, bench.device, experiments.sample_rows(bench.faces, bench.sample)
    scores = vae_scores.score_reconstructions(model, faces, faces.rows(bench.settings.SPLIT), device)
    latents = vae_scores.latents_of(model_of(name), model, faces, rows, device, summary, "metric")
    e, d = latents.distances(), trained.given_distances(metric, faces, rows, device)
    scores |= statistics.distance_scores(e, d, latents.labels, resamples=1)
    scores["knn_accuracy"] = statistics.knn_accuracy(e, latents.labels)
    if judge is not None:
        scores |= vae_scores.score_edits(latents, judge, identifier, metric, faces, device, vae_scores.pair_of(faces))
    return statistics.finite(scores)


def probe(bench, model, embeddings):
    """The scores of distances of a linear probe of a VAE: the map of mu to C(x) with the least squares on training
    faces. How much of the metric a latent space has that was trained without it. embeddings (N, k): C(x) of all faces.
    """
    faces = bench.faces
    rows, held_out = faces.rows("train"), experiments.sample_rows(faces, bench.sample)
    mu, of_held_out = (trained.encode(model, faces, some, bench.device)[0] for some in (rows, held_out))
    e = statistics.euclidean(LinearRegression().fit(mu, embeddings[rows]).predict(of_held_out))
    d = statistics.euclidean(embeddings[held_out])
    return statistics.distance_scores(e, d, faces.labels[held_out], resamples=1)
