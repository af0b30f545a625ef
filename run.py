"""Trains the classifier, writes its embeddings, then trains the VAE without and with the distance regulariser.

In: faces (DATA). Out: a new folder experiments/N/. Then: python experiments.py
Edit the constants below, or set them for one run: python run.py DATA=data/my_faces classifier.STEPS=500 vae.BETA=0
"""
if __name__ == "__main__":      # first, as the imports below take seconds
    from training.stopping import listen
    listen()

import shlex
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import data
import training

for package in (data, training):        # in a notebook, a file or package of the user's own may have one of these names
    if package.__file__ is None or Path(package.__file__).resolve().parent.parent != Path(__file__).resolve().parent:
        raise ImportError(f"import {package.__name__} finds {package.__file__}, not that in {Path(__file__).parent}: "
                          "rename yours, or put that folder first on sys.path")

import expr_classifier.run as classifier_script
import metric_vae.run as vae_script
from data import options as data_options, sources
from expr_classifier import train as classifier
from metric_vae import metrics, train as vae
from training import storage
from training.devices import layout, start
from training.distributed import first_process_first
from training.errors import UserError, check_choice, run_script
from training.log import copy_stage
from training.plugins import is_plugin
from training.settings import default_settings, parse, stored
from training.tensorboard import Board, check_log

# --- the faces
DATA = "auto"               # "auto", "synthetic", "tfd", "fer2013", "olivetti", "lfw",
                            # "torchvision:MNIST", ... or a path: see data/README.md
IMAGE_SIZE = 48             # pixels, a multiple of 8; other sizes are resized to it
FOLD = 0                    # 0..4, of TFD's five

# --- the run
SEED = 0                    # of weights, order, noise, drawn splits and synthetic faces
DEVICE = "auto"             # "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", ...
PRECISION = "auto"          # "auto" (bf16 where training is faster in it), "fp32", "bf16"
LOG: str | None = None      # "tensorboard": losses and reconstructions for TensorBoard too (pip install tensorboard)
RECIPE = "ours"             # or "reference": the settings of the reference implementation, listed in REFERENCE
RESUME: int | str | None = None     # continue this unfinished run: its number, or "last"
CLASSIFIER: int | str | None = None     # take the classifier of this run (its number, its folder, or "last") instead
                                        # of training one, and no_dist_reg if a new one would become the same

REFERENCE = """
    classifier.ARCHITECTURE=original classifier.LOSS=squared_error classifier.SMOOTHING=0 classifier.BALANCE=0
    classifier.STEPS=1050 classifier.BATCH=64 classifier.LEARNING_RATE=(1e-3,1e-4) classifier.WEIGHT_DECAY=0
    classifier.FLIP=False classifier.SHIFT=0 classifier.TURN=0 classifier.ZOOM=0 classifier.LAYER=last
    vae.ARCHITECTURE=original vae.Z_DIM=512 vae.METRIC_NORM=2 vae.METRIC_DIMS=None vae.ALPHA=0.1
    vae.REGULARIZER=batchwise vae.BETA=1e5 vae.TARGET_STRESS=None vae.REGULARIZE_ON=None vae.CONSISTENCY=0
    vae.STEPS=2650 vae.BATCH=64 vae.LEARNING_RATE=1e-3 vae.WARM_UP=0 vae.ADAM_BETA2=0.999 vae.MAX_GRADIENT=None
    vae.FLIP=False vae.SHIFT=0 vae.TURN=0 vae.ZOOM=0 vae.MOVE=0 vae.UNLABELLED=False""".split()


def main(arguments):
    """Train a run with these arguments, a list of NAME=VALUE; returns its folder."""
    settings, folder, other = settings_of(arguments)
    of_run, of_classifier, of_vae = settings[""], settings["classifier"], settings["vae"]
    check_log(of_run.LOG)
    classifier.check_settings(of_classifier)
    vae.check_settings(of_vae)
    if folder is None:
        device, precision = start(of_run.DEVICE, of_run.PRECISION)
    else:
        device, precision = start(*storage.stored_device(folder, of_run.DEVICE))
    began = time.perf_counter()
    with first_process_first():
        faces = sources.load(of_run.DATA, of_run.IMAGE_SIZE, of_run.FOLD, of_run.SEED, settings["faces"])
    print(f"{faces.name}: {len(faces)} faces of {faces.size}x{faces.size} pixels; {device}, {precision}")
    missing = classifier.missing_classes(faces)
    if missing and of_vae.METRIC == "embeddings":
        print(f"warning: {missing}: no classifier, so METRIC=pixels instead of embeddings"
              + without_untrained(faces, settings["faces"].LEFT_OUT))
        of_vae = replace(of_vae, METRIC="pixels")
        settings["vae"] = of_vae
    elif missing:
        print(f"{missing}: no classifier, and no scores and figures that need one")
    metric = None                                               # that of the classifier, once it is trained
    if of_vae.METRIC != "embeddings":
        metric = metrics.load_metric(of_vae.METRIC, faces, device, of_vae.METRIC_NORM, of_vae.METRIC_KIND)
    vae.check_faces(of_vae, faces, metric, "vae.BATCH")
    if not missing:
        classifier.check_faces(of_classifier, faces, "classifier.BATCH")
    if folder is None:
        folder = new_folder(settings, faces.about(), device, precision, other)
    else:
        storage.check_same_data(folder, faces.about())
        storage.warn_of_rounding(folder)
    print(f"run folder {folder}")
    board = Board(of_run.LOG, folder)
    with storage.hold(folder):
        if not missing:
            model = trained_classifier(faces, of_classifier, folder, of_run.SEED, device, precision, board)
            test = faces.rows("test", labelled=True)
            if len(test):
                accuracy = classifier.measure_accuracy(model, faces, test, device)
                print(f"classifier: test accuracy {accuracy:.1%} of {len(test)} faces")
            if metric is None:
                metric = metric_of(model, of_classifier.LAYER, of_vae.METRIC_NORM)
                metrics.check_spread(metric, of_vae.METRIC, faces, device)
        for name in vae.MODELS:
            vae.train(name, faces, metric, of_vae, folder, of_run.SEED, device, precision, board)
        storage.finish_settings(folder)
    print(f"finished in {time.perf_counter() - began:.0f} s: {folder}; now: python experiments.py")
    return folder


def settings_of(arguments):
    """The settings of a run by script; the folder of the run that RESUME names; and the OtherRun that CLASSIFIER names.
    Each of the last two is None where nothing is named.
    """
    scripts = {"": sys.modules[__name__], "classifier": classifier_script, "vae": vae_script,
               "faces": data_options}
    settings = parse(arguments, scripts)
    check_choice("RECIPE", settings[""].RECIPE, ("ours", "reference"))
    if settings[""].RECIPE == "reference":
        settings = parse(REFERENCE + arguments, scripts)
    keywords = (*sources.NAMES, *metrics.NAMES)
    settings = {name: storage.absolute(of_script, keywords) for name, of_script in settings.items()}
    folder = other = None
    if settings[""].RESUME is not None:
        storage.refuse_more_than_resume(arguments)
        folder = storage.find_run(settings[""].RESUME, finished=False, constants_of="run")
        settings = storage.read_settings(folder, scripts)
    elif settings[""].CLASSIFIER is not None:
        other = OtherRun(storage.find_run(settings[""].CLASSIFIER, constants_of="classifier"), scripts)
        settings["classifier"] = other.classifier_settings(settings["classifier"], default_settings(classifier_script))
    return settings, folder, other


def without_untrained(faces, left_out):
    """How to train a classifier all the same, as text: without the classes that have no training face. left_out: the
    classes that are left out already, with commas between, or None.
    """
    untrained = classifier.untrained_classes(faces)
    if not untrained or len(faces.classes) - len(untrained) < 2:
        return ""
    names = ",".join(([left_out] if left_out else []) + untrained)
    return f"; to train a classifier, add training faces or leave classes out: {shlex.quote(f'LEFT_OUT={names}')}"


def new_folder(settings, about, device, precision, other):
    """A new run folder with its settings.json, and with what it takes from another run, where that is not None."""
    more = {}
    if other is not None:
        storage.check_same_data(other.folder, about)
    folder = storage.new_run_folder()
    if other is not None:
        with first_process_first():
            more["classifier_of"] = other.copy_to(folder, settings, device, precision)
    storage.start_settings(folder, **stored(settings), data=about, device=str(device), precision=precision,
                           code=code_of(settings), **more)
    return folder


def trained_classifier(faces, settings, folder, seed, device, precision, board):
    """The classifier of a run folder, which is trained unless its embeddings are there too."""
    if (folder / "embeddings.npy").exists():
        return classifier.load_classifier(folder / "classifier.pt", device,
                                          layout(settings.ARCHITECTURE, device, precision))
    model = classifier.train(faces, settings, folder, seed, device, precision, board)
    classifier.write_embeddings(model, faces, settings.LAYER, folder, device)
    return model


class OtherRun:
    """A run whose classifier is taken instead of training one. Raises UserError where it is not trained yet."""

    def __init__(self, folder, scripts):
        self.folder, self.settings = folder, storage.read_settings(folder, scripts)
        self.about = storage.about_run(folder)
        if not (folder / "embeddings.npy").exists():
            raise UserError(folder, "a run whose classifier is trained", "no embeddings.npy", "choose another run")

    def classifier_settings(self, settings, defaults):
        """The settings of its classifier. Raises UserError where settings, those of the new run, are others, unless
        they are the defaults.
        """
        ours = asdict(settings)
        theirs = {name: getattr(self.settings["classifier"], name) for name in ours}
        differ = {name: value for name, value in ours.items() if value != theirs[name]}
        text = lambda values: ", ".join(f"classifier.{name}={values[name]}" for name in differ)
        if any(value != getattr(defaults, name) for name, value in differ.items()):
            raise UserError(f"CLASSIFIER={self.folder}", f"the settings of that classifier: {text(theirs)}",
                            text(differ), "leave them out, or train another classifier")
        if differ:
            print(f"as in {self.folder}: {text(theirs)}")
        return replace(settings, **theirs)

    def copy_to(self, folder, settings, device, precision):
        """Copy the classifier with its embeddings, no_dist_reg if it would become the same, and what measures, into a
        new run folder; returns what settings.json keeps of that.
        """
        copied = copy_stage(self.folder, folder, "classifier", [
            "classifier.pt", "embeddings.npy", "judge.pt", "identity.pt", "second.pt"])
        # this file says that it is trained to the end; the new run makes its own, with the scale of its own metric
        if (self.folder / "no_dist_reg_latents.npz").exists():
            theirs = what_matters(self.settings, *(self.about.get(name) for name in ("device", "precision", "code")))
            ours = what_matters(settings, device, precision, code_of(settings))
            differ = ", ".join(name for name in ours if ours[name] != theirs.get(name))
            if differ:
                print(f"no_dist_reg is trained, not taken from {self.folder}: {differ} differ")
            else:
                copied += copy_stage(self.folder, folder, "no_dist_reg", ["no_dist_reg.pt"])
        print(f"taken from {self.folder}: {', '.join(copied)}")
        seed = next(iter(self.settings.values())).SEED          # of the script that was started
        return dict(folder=str(self.folder), SEED=self.about.get("classifier_of", {}).get("SEED", seed))


def code_of(settings):
    """The fingerprint of the code that trains the VAEs; of an ARCHITECTURE of the user's, that in its folder, too."""
    architecture = settings["vae"].ARCHITECTURE
    own = sorted(Path(architecture.rpartition(":")[0]).parent.glob("*.py")) if is_plugin(architecture) else []
    return storage.code_fingerprint(*own)


def what_matters(settings, device, precision, code):
    """All that no_dist_reg depends on, besides the data; settings: those of the scripts; code: see code_of."""
    return dict(SEED=settings[""].SEED, DEVICE=str(device).partition(":")[0], PRECISION=precision, code=code,
                **vae.settings_without_metric(settings["vae"]))


def metric_of(model, layer, norm=2.0):
    """d_D of a trained classifier: the distances between the values of its layer of this name, by the p-norm norm."""
    return metrics.Function(lambda x: model.layers(x)[layer], norm)


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]), "python run.py RESUME=last continues from the last finished epoch")
