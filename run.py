"""Trains the classifier, writes its embeddings, then trains the VAE without and with the distance regulariser.

In: faces (DATA). Out: a new folder experiments/N/. Then: python experiments.py
Set constants below or for one run: python run.py DATA=data/my_faces classifier.STEPS=500 vae.BETA=0
"""
import sys
import time

import expr_classifier.run as classifier
import metric_vae.run as vae
import training
from data.faces import load
from metric_vae.metrics import Function, load_metric
from training import storage
from training.processes import first_process_first, join_processes

# --- the faces
DATA = "auto"               # "auto", "synthetic", "tfd", "fer2013" or a path: see data/README.md
IMAGE_SIZE = 48             # pixels, a multiple of 8; other sizes are resized to it
FOLD = 0                    # 0..4, of TFD's five

# --- the run
SEED = 0                    # of weights, order, noise, drawn splits and synthetic faces
DEVICE = "auto"             # "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", ...
PRECISION = "auto"          # "auto" (bf16 where it is seen to be faster), "fp32", "bf16"
RECIPE = "ours"             # or "reference": first set what REFERENCE names to what the reference implementation has
SIDE_BY_SIDE = True         # on a processor the two VAEs are trained at once, each by half of it
RESUME: int | str | None = None     # go on with this unfinished run: its number, or "last"

REFERENCE = """
    classifier.ARCHITECTURE=original classifier.LOSS=squared_error classifier.SMOOTHING=0 classifier.BALANCE=0
    classifier.STEPS=1050
    classifier.BATCH=64 classifier.LEARNING_RATE=(1e-3,1e-4) classifier.WEIGHT_DECAY=0 classifier.FLIP=False
    classifier.SHIFT=0 classifier.TURN=0 classifier.ZOOM=0 classifier.LAYER=last vae.ARCHITECTURE=original
    vae.Z_DIM=512 vae.METRIC_NORM=2 vae.METRIC_DIMS=None vae.ALPHA=0.1 vae.REGULARIZER=batchwise vae.BETA=1e5
    vae.TARGET_STRESS=None vae.REGULARIZE_ON=None vae.CONSISTENCY=0 vae.STEPS=2650 vae.BATCH=64
    vae.LEARNING_RATE=1e-3 vae.MAX_GRADIENT=None vae.FLIP=False vae.SHIFT=0 vae.UNLABELLED=False""".split()


def main():
    modules = {"": sys.modules[__name__], "classifier": classifier, "vae": vae}
    training.override(sys.argv[1:], modules)
    training.check_choice("RECIPE", RECIPE, ("ours", "reference"))
    if RECIPE == "reference":
        training.override(REFERENCE + sys.argv[1:], modules)
    folder = None
    if RESUME is not None:
        folder = storage.find_run(RESUME, finished=False, constants_of="run")
        storage.restore_constants(folder, modules, sys.argv[1:])
    classifier.check_settings()
    vae.check_settings()
    if folder is None:
        device = training.choose_device(DEVICE)
        join_processes(device)
        precision = training.choose_precision(PRECISION, device)
    else:
        device, precision = storage.stored_device(folder, DEVICE)
        join_processes(device)
    start = time.perf_counter()
    with first_process_first():
        faces = load(DATA, IMAGE_SIZE, FOLD, SEED)
    print(f"{faces.name}: {len(faces)} faces of {faces.size}x{faces.size} pixels; {device}, {precision}")
    metric = None if vae.METRIC == "embeddings" else load_metric(vae.METRIC, faces, device, vae.METRIC_NORM)
    vae.check_metric(metric)
    if folder is None:
        folder = storage.new_run_folder()
        storage.start_settings(folder, **storage.stored_constants(modules), data=faces.about(), device=str(device),
                               precision=precision)
    else:
        storage.check_same_data(folder, faces.about())
    storage.hold(folder)
    print(f"run folder {folder}")

    model = classifier.train(faces, folder, SEED, device, precision)
    classifier.write_embeddings(model, faces, folder, device)
    test = faces.rows("test", labelled=True)
    if len(test):
        accuracy = classifier.measure_accuracy(model, faces, test, device)
        print(f"classifier: {accuracy:.1%} right of {len(test)} test faces")
    metric = metric or metric_of(model)
    vae.train_both(faces, metric, folder, SEED, device, precision, SIDE_BY_SIDE)
    storage.finish_settings(folder)
    print(f"finished in {time.perf_counter() - start:.0f} s: {folder}; now: python experiments.py")


def metric_of(model):
    """d_D of a trained classifier: the distances of its LAYER."""
    return Function(lambda x: model.layers(x)[classifier.LAYER], vae.METRIC_NORM)


if __name__ == "__main__":
    training.run_script(main, "python run.py RESUME=last goes on from the last finished epoch")
