"""Trains the classifier and writes the embeddings, alone or as the first stage of run.py.

In: Faces. Out, in a run folder: classifier.pt, embeddings.npy and lines of log.jsonl.
Alone: python -m expr_classifier.run DATA=data/my_faces STEPS=500
"""
import sys
import time

import numpy as np
import torch
from torch.nn import functional

import training
from data.batches import Images, batches, join
from data.faces import EXPRESSIONS, load
from expr_classifier.model import ARCHITECTURES, LAYERS
from training import UserError, storage
from training.processes import (add_up, add_up_gradients, average_buffers, first_process_first, gather,
                                join_processes, own_part)

# --- the network and its loss
ARCHITECTURE = "light"          # one of expr_classifier/model.py; on all of FER2013 "residual", with STEPS = 36000
LOSS = "cross_entropy"          # or "squared_error": the reference's, between softmax and one-hot
SMOOTHING = 0.0                 # share of each label that cross_entropy spreads over all classes; 0.1 in long trainings
BALANCE = 0.5                   # loss weights of expressions: count ** -BALANCE; 0 none, 1 each expression the same

# --- training
STEPS = 2300                    # batches, in whole epochs, of which there is at least one
BATCH = 32                      # faces
LEARNING_RATE = (3e-3, 1e-4)    # Adam's, at the first and the last step, linear between
WEIGHT_DECAY = 1e-2
FLIP = True                     # mirror every other training face
SHIFT = 2                       # pixels that a training face is moved by at most
TURN = 12.0                     # degrees that it is turned by at most
ZOOM = 0.12                     # share that it is stretched or shrunk by at most, across and down each by its own

# --- what is written
LAYER = "last"                  # the layer in embeddings.npy: "last", "second_last" or "softmax"

# --- when run alone (run.py has its own)
DATA = "auto"                   # "auto", "synthetic", "tfd", "fer2013" or a path: see data/README.md
IMAGE_SIZE = 48                 # pixels
FOLD = 0                        # 0..4, of TFD's five
SEED = 0
DEVICE = "auto"                 # "auto", "cpu", "cuda", ...
PRECISION = "auto"              # "auto", "fp32", "bf16"


def check_settings():
    """Raise UserError for a constant that cannot be."""
    training.check_choice("ARCHITECTURE", ARCHITECTURE, ARCHITECTURES)
    training.check_choice("LOSS", LOSS, ("cross_entropy", "squared_error"))
    training.check_choice("LAYER", LAYER, LAYERS)
    training.check_at_least(1, STEPS=STEPS, BATCH=BATCH)
    training.check_at_least(0, SHIFT=SHIFT, TURN=TURN, ZOOM=ZOOM, SMOOTHING=SMOOTHING)
    training.check_schedules(LEARNING_RATE=LEARNING_RATE)
    if ZOOM >= 1:
        raise UserError("ZOOM", "less than 1", ZOOM, "0.12, say")


def loss_function(logits, labels, weights):
    """Each face's loss (B,), weighted by expression: cross-entropy, or half the squared error to one-hot.

    logits (B, classes), labels int64 (B,), weights (classes,).
    """
    if LOSS == "cross_entropy":
        losses = functional.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=SMOOTHING)
    else:
        target = functional.one_hot(labels, logits.shape[1])
        losses = (logits.float().softmax(1) - target).square().sum(1) / 2
    return losses * weights[labels]


def train(faces, folder, seed, device, precision, classes=len(EXPRESSIONS)):
    """Train the classifier on the labelled training faces; returns it, in eval mode.

    classes: how many labels there are, if they are not the expressions. Goes on from folder/classifier.pt where there
    is one. Raises UserError where an expression has no face.
    """
    train_rows = faces.rows("train", labelled=True)
    counts = np.bincount(faces.labels[train_rows], minlength=classes)
    if (counts == 0).any():
        raise UserError(faces.name, "labelled training faces of each expression",
                        "none of " + ", ".join(np.array(EXPRESSIONS)[counts == 0]), "add some, or change the split")
    training.check_batch(BATCH, len(train_rows), faces.name)
    torch.manual_seed(seed)
    generator = torch.Generator(device).manual_seed(seed)
    layout = training.layout(ARCHITECTURE, device, precision)
    model = ARCHITECTURES[ARCHITECTURE](faces.size, classes).to(device, memory_format=layout)
    least = training.least_batch(model)
    training.check_at_least(least, BATCH=BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
    checkpoint = folder / "classifier.pt"
    done, _ = storage.resume(checkpoint, model, optimizer, generator)
    images = Images(faces, device, layout)
    labels = torch.from_numpy(faces.labels).to(device)
    weights = torch.from_numpy(counts ** -float(BALANCE)).float().to(device)
    weights *= len(train_rows) / weights[labels[torch.from_numpy(train_rows)]].sum()

    steps = len(batches(train_rows, BATCH, least=least))
    epochs = training.epochs_for(STEPS, steps)
    for epoch in training.epochs("classifier", done, epochs):
        start = time.perf_counter()
        model.train()
        torch.manual_seed(seed * 1000 + epoch)  # the judge's dropout draws from torch's own generator
        total = torch.zeros(2, device=device)                       # loss and right answers, summed over faces
        for step, rows in enumerate(batches(train_rows, BATCH, generator, least), epoch * steps):
            progress = step / max(epochs * steps - 1, 1)
            optimizer.param_groups[0]["lr"] = training.scheduled(LEARNING_RATE, progress)
            own = own_part(len(rows))
            x = images(rows, generator, FLIP, SHIFT, TURN, ZOOM, own)
            with training.autocast(device, precision):
                logits = model(x)
            losses = loss_function(logits, labels[rows][own], weights)
            optimizer.zero_grad()
            (losses.sum() / len(rows)).backward()
            add_up_gradients(model)
            optimizer.step()
            total += torch.stack([losses.detach().sum(), (logits.argmax(1) == labels[rows][own]).sum()])
        loss, accuracy = (add_up(total) / len(train_rows)).tolist()
        average_buffers(model)
        seconds = time.perf_counter() - start
        training.check_finite(dict(loss=loss), "classifier", epoch + 1, checkpoint)
        model.eval()
        val_accuracy = measure_accuracy(model, faces, faces.rows("val", labelled=True), device)
        storage.write_log(folder, "classifier", epoch + 1, loss=loss, train_accuracy=accuracy,
                          val_accuracy=val_accuracy, seconds=seconds, images_per_second=len(train_rows) / seconds)
        storage.save_checkpoint(checkpoint, model, optimizer, generator, epoch + 1, architecture=ARCHITECTURE,
                                size=faces.size, classes=classes)
    return model.eval().requires_grad_(False)


def load_classifier(path, device):
    """The trained classifier of a checkpoint, in eval mode."""
    state = storage.load_checkpoint(path, device)
    model = ARCHITECTURES[state["architecture"]](state["size"], state["classes"])
    model.load_state_dict(state["model"])
    return model.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


@torch.no_grad()
def layer(model, faces, rows, device, name="last", batch_size=256):
    """A layer of the classifier, float32 (len(rows), k), for the faces of these rows."""
    images, own = Images(faces, device), torch.as_tensor(rows[own_part(len(rows))], dtype=torch.int64)
    parts = (model.layers(images(part))[name].float() for part in own.split(batch_size))     # one empty part of no rows
    return gather(join(parts, len(own)), len(rows)).cpu().numpy()


def measure_accuracy(model, faces, rows, device):
    """The share of rows whose largest output is the face's label; None without labelled faces."""
    if len(rows) == 0:
        return None
    return float((layer(model, faces, rows, device).argmax(1) == faces.labels[rows]).mean())


def write_embeddings(model, faces, folder, device):
    """Write embeddings.npy, float32 (N, k): LAYER of every face, labelled or not, in the order of the data."""
    embeddings = layer(model, faces, np.arange(len(faces)), device, LAYER)
    storage.write_atomically(folder / "embeddings.npy", lambda file: np.save(file, embeddings))
    return embeddings


def main():
    from expr_classifier import figures                 # here: matplotlib is slow to import
    module = sys.modules[__name__]
    training.override(sys.argv[1:], {"": module})
    check_settings()
    device = training.choose_device(DEVICE)
    join_processes(device)
    precision = training.choose_precision(PRECISION, device)
    with first_process_first():
        faces = load(DATA, IMAGE_SIZE, FOLD, SEED)
    folder = storage.new_run_folder()
    storage.start_settings(folder, data=faces.about(), classifier=training.constants(module),
                           device=str(device), precision=precision)
    model = train(faces, folder, SEED, device, precision)
    write_embeddings(model, faces, folder, device)
    test = faces.rows("test", labelled=True)
    if len(test):
        print(f"{folder}: test accuracy {measure_accuracy(model, faces, test, device):.3f} on {len(test)} faces")
        figures.confusion(folder / "confusion.png", faces.labels[test], layer(model, faces, test, device).argmax(1))
    storage.finish_settings(folder)
    print(f"wrote embeddings.npy{' and confusion.png' * (len(test) > 0)} to {folder}")


if __name__ == "__main__":
    training.run_script(main)
