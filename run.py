"""Trains the classifier, writes its embeddings, then trains the VAE without and with the distance regulariser.

In: faces (DATA). Out: a new folder experiments/N/. Then: python experiments.py
Set constants below or for one run: python run.py DATA=data/my_faces classifier.EPOCHS=5 vae.BETA=0
"""
import sys
import time

import expr_classifier.run as classifier
import metric_vae.run as vae
import training
from data.faces import load
from metric_vae.metrics import Function, load_metric

# --- the faces
DATA = "auto"               # "auto", "synthetic", "tfd", "fer2013" or a path: see data/README.md
IMAGE_SIZE = 48             # pixels, a multiple of 8; other sizes are resized to it
FOLD = 0                    # 0..4, of TFD's five

# --- the run
SEED = 0                    # of weights, order, noise, drawn splits and synthetic faces
DEVICE = "auto"             # "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", ...
PRECISION = "auto"          # "auto" (bf16 where it is seen to be faster), "fp32", "bf16"
RESUME: int | str | None = None     # go on with this unfinished run: its number, or "last"


def main():
    modules = {"": sys.modules[__name__], "classifier": classifier, "vae": vae}
    training.override(sys.argv[1:], modules)
    folder = None
    if RESUME is not None:
        folder = training.find_run(RESUME, finished=False, constants_of="run")
        training.restore_constants(folder, modules, sys.argv[1:])
    classifier.check_settings()
    vae.check_settings()
    device = training.choose_device(DEVICE)
    precision = training.choose_precision(PRECISION, device)
    start = time.perf_counter()
    faces = load(DATA, IMAGE_SIZE, FOLD, SEED)
    print(f"{faces.name}: {len(faces)} faces of {faces.size}x{faces.size} pixels; {device}, {precision}")
    metric = None if vae.METRIC == "embeddings" else load_metric(vae.METRIC, faces, device, vae.METRIC_NORM)
    if folder is None:
        folder = training.new_run_folder()
        training.start_settings(folder, **training.stored_constants(modules), data=faces.about(), device=str(device),
                                precision=precision)
    else:
        training.check_same_data(folder, faces.about())
    print(f"run folder {folder}")

    model = classifier.train(faces, folder, SEED, device, precision)
    classifier.write_embeddings(model, faces, folder, device)
    if metric is None:
        metric = Function(classifier.metric_layers(model), vae.METRIC_NORM)
    for name in vae.MODELS:
        vae.train(name, faces, metric, folder, SEED, device, precision)
    training.finish_settings(folder)
    print(f"finished in {time.perf_counter() - start:.0f} s: {folder}; now: python experiments.py")


if __name__ == "__main__":
    training.run_script(main, "python run.py RESUME=last goes on from the last finished epoch")
