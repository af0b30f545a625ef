"""Trains the classifier and writes the embeddings, alone or as the first stage of run.py.

In: Faces. Out, in a run folder: classifier.pt, embeddings.npy and lines of log.jsonl.
Alone: python -m expr_classifier.run DATA=data/my_faces STEPS=500
"""
if __name__ == "__main__":      # first, as the imports below take seconds
    from training.stopping import listen
    listen()

import sys
from dataclasses import asdict

from data import options as data_options, sources
from expr_classifier.train import check_faces, check_settings, layer_of, train, write_embeddings
from training import storage
from training.devices import start
from training.distributed import first_process_first
from training.errors import run_script
from training.settings import parse
from training.tensorboard import Board, check_log

# --- the network and its loss
ARCHITECTURE = "light"          # one of expr_classifier/model.py, or "my_file.py:function" of (size, classes,
                                # channels); on all of FER2013 "residual", with STEPS = 36000
LOSS = "cross_entropy"          # or "squared_error": the reference's, between softmax and one-hot
SMOOTHING = 0.0                 # share of each label that cross_entropy spreads over all classes; 0.1 in long trainings
BALANCE = 0.5                   # loss weights of classes: count ** -BALANCE; 0 none, 1 each class the same

# --- training
STEPS = 2300                    # batches, rounded to whole epochs, at least one
BATCH = 32                      # faces in a batch
LEARNING_RATE = (3e-3, 1e-4)    # Adam's, at the first and the last step, linear between
WEIGHT_DECAY = 1e-2
FLIP = True                     # mirror each training face with probability 1/2
SHIFT = 2                       # pixels that a training face is moved by at most
TURN = 12.0                     # degrees that it is turned by at most
ZOOM = 0.12                     # it is stretched or shrunk by at most this share, in width and height independently

# --- what is written
LAYER = "last"                  # the layer in embeddings.npy: "last", "second_last" or "softmax"

# --- when run alone (run.py has its own)
DATA = "auto"                   # "auto", "synthetic", "tfd", "fer2013", "olivetti", "lfw",
                                # "torchvision:MNIST", ... or a path: see data/README.md
IMAGE_SIZE = 48                 # pixels
FOLD = 0                        # 0..4, of TFD's five
SEED = 0
DEVICE = "auto"                 # "auto", "cpu", "cuda", ...
PRECISION = "auto"              # "auto", "fp32", "bf16"
LOG: str | None = None          # "tensorboard": losses for TensorBoard too (pip install tensorboard)


def main(arguments):
    from expr_classifier import figures                 # here: matplotlib is slow to import
    parsed = parse(arguments, {"": sys.modules[__name__], "faces": data_options})
    settings, options = storage.absolute(parsed[""], sources.NAMES), parsed["faces"]
    check_settings(settings)
    check_log(settings.LOG)
    device, precision = start(settings.DEVICE, settings.PRECISION)
    with first_process_first():
        faces = sources.load(settings.DATA, settings.IMAGE_SIZE, settings.FOLD, settings.SEED, options)
    check_faces(settings, faces, "BATCH")
    folder = storage.new_run_folder()
    storage.start_settings(folder, data=faces.about(), classifier=asdict(settings), faces=asdict(options),
                           device=str(device), precision=precision)
    model = train(faces, settings, folder, settings.SEED, device, precision, Board(settings.LOG, folder))
    write_embeddings(model, faces, settings.LAYER, folder, device)
    written = "embeddings.npy"
    test = faces.rows("test", labelled=True)
    if len(test):
        predicted = layer_of(model, faces, test, device).argmax(1)
        print(f"test accuracy: {(predicted == faces.labels[test]).mean():.1%} of {len(test)} faces")
        figures.confusion(folder / "confusion.png", faces.labels[test], predicted, faces.classes)
        written += " and confusion.png"
    storage.finish_settings(folder)
    print(f"wrote {written} to {folder}")


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
