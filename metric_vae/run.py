"""Trains the VAE without and with a distance regulariser, alone or as the last stages of run.py.

In: Faces and a metric on them. Out, in a run folder: no_dist_reg.pt, dist_reg.pt, the summary of each one's latents
as .npz, and lines of log.jsonl.
Alone, with points or distances of your own: python -m metric_vae.run DATA=data/my_faces METRIC=my_points.npy
"""
if __name__ == "__main__":      # first, as the imports below take seconds
    from training.stopping import listen
    listen()

import sys
from dataclasses import asdict

from data import options as data_options, sources
from metric_vae import metrics
from metric_vae.train import MODELS, check_faces, check_settings, train
from training import storage
from training.devices import start
from training.distributed import first_process_first
from training.errors import UserError, run_script
from training.settings import parse
from training.tensorboard import Board, check_log

# --- the network
ARCHITECTURE = "light"          # one of metric_vae/model.py, or "my_file.py:function" of (size, z_dim,
                                # metric_dims, channels)
Z_DIM = 128                     # dimensions of the latent space

# --- the metric d_D that is given
METRIC = "embeddings"           # of the classifier (run.py only), "pixels", "labels", "action_units" (those that drew a
                                # synthetic face), a file of points or distances (.npy, .npz, .csv, .pt), or
                                # "my_file.py:function" of faces (B, C, H, W) in 0..1 to points (B, k), or of two such
                                # batches, d(x1, x2), to distances (B,): called with all pairs of a batch, each in one
                                # order, in one or several calls
METRIC_KIND: str | None = None  # what a file holds, "points" or "distances"; None: distances if it is (N, N)
METRIC_NORM: float | str = 2.0  # the p-norm between points, or "cosine"

# --- the loss: squared error summed over pixels + alpha KL + beta regulariser + consistency; each weight is that of
# --- the first and of the last step, linear between
ALPHA: tuple | str = (0.03, 0.03)       # or "optimal": twice the error per pixel, the decoder's variance (sigma-VAE)
REGULARIZER = "stress"          # one of metric_vae/regularizers.py, "my_file.py:function" of (e, d, known), as there,
                                # or "none"
BETA = (10000.0, 10000.0)
TARGET_STRESS: float | None = None      # tunes BETA, from its first value: up while Kruskal's stress is above this
REGULARIZE_ON: str | None = None        # "mu", "z", "expected" (E|zi - zj|^2); None: what each regulariser says
METRIC_DIMS: int | None = 8     # the first dimensions of z keep the metric; None: the whole of z
SEES_LIGHT: bool | None = None  # whether the metric branch sees the brightness and contrast of a face; None: unless
                                # METRIC is "embeddings", since C does not see them
CONSISTENCY = (0.0, 5.0)        # of the consistency loss: how badly the encoder recovers a metric part that was taken
                                # from another face. 0 in the first half of training, in which it would only cost time;
                                # then from the first of these weights to the last

# --- training
STEPS = 2200                    # batches, rounded to whole epochs, at least one
BATCH = 16                      # faces in a batch
LEARNING_RATE = (3e-3, 1e-4)    # Adam's, at the first and the last step, linear between
WARM_UP = 0.05                  # share of the steps in which the learning rate first rises from 0
ADAM_BETA2 = 0.99               # Adam's second decay rate: gradients fall fast, and 0.999 would remember large ones
MAX_GRADIENT: float | None = 100.0      # gradients are clipped to this norm, those of the metric branch and all others
                                        # separately; None: no clipping
FLIP = True                     # mirror each training face with probability 1/2
SHIFT = 0                       # pixels that a training face is moved by at most
METRIC_BATCH = 48               # faces for the regulariser in each step, drawn at random (for a sparse matrix, stored
                                # pairs). Only the metric branch sees them; without a branch (METRIC_DIMS=None, other
                                # networks than "light") the faces of the batch are used instead, but stored pairs
TURN = 12.0                     # these faces are rotated by at most this many degrees,
ZOOM = 0.12                     # stretched or shrunk by at most this share, in width and height independently,
MOVE = 2.0                      # and shifted by at most this many pixels; d_D is computed on the warped faces
LOOKED_UP = 0.33                # factor on TURN, ZOOM and MOVE where d_D is looked up per face and ignores the warp
UNLABELLED = True               # train on unlabelled faces too
MEAN_OF = 4096                  # training faces, at most, whose mean the decoder adds

# --- weights that are tuned automatically
AVERAGE = 0.05                  # share of the newest batch in the running mean behind ALPHA="optimal"
DUAL_RATE = 0.02                # largest change of log BETA in a step towards TARGET_STRESS

# --- when run alone (run.py has its own)
DATA = "auto"                   # "auto", "synthetic", "tfd", "fer2013", "olivetti", "lfw",
                                # "torchvision:MNIST", ... or a path: see data/README.md
IMAGE_SIZE = 48                 # pixels
FOLD = 0                        # 0..4, of TFD's five
SEED = 0
DEVICE = "auto"                 # "auto", "cpu", "cuda", ...
PRECISION = "auto"              # "auto", "fp32", "bf16"
LOG: str | None = None          # "tensorboard": losses and reconstructions for TensorBoard too


def main(arguments):
    parsed = parse(arguments, {"": sys.modules[__name__], "faces": data_options})
    settings, options = storage.absolute(parsed[""], (*sources.NAMES, *metrics.NAMES)), parsed["faces"]
    check_settings(settings)
    check_log(settings.LOG)
    if settings.METRIC == "embeddings":
        raise UserError("METRIC", 'when run alone: "pixels", "labels", "action_units", a file or "file.py:function"',
                        "embeddings", "METRIC=experiments/0/embeddings.npy, or python run.py")
    device, precision = start(settings.DEVICE, settings.PRECISION)
    with first_process_first():
        faces = sources.load(settings.DATA, settings.IMAGE_SIZE, settings.FOLD, settings.SEED, options)
    metric = metrics.load_metric(settings.METRIC, faces, device, settings.METRIC_NORM, settings.METRIC_KIND)
    check_faces(settings, faces, metric, "BATCH")
    folder = storage.new_run_folder()
    storage.start_settings(folder, data=faces.about(), vae=asdict(settings), faces=asdict(options),
                           device=str(device), precision=precision)
    board = Board(settings.LOG, folder)
    for name in MODELS:
        train(name, faces, metric, settings, folder, settings.SEED, device, precision, board)
    storage.finish_settings(folder)
    print(f"wrote {' and '.join(f'{name}.pt' for name in MODELS)} to {folder}")


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
