"""The training loop of a classifier, and what a trained one says of faces.

In: Faces and the settings of expr_classifier/run.py. Out, in a run folder: classifier.pt, embeddings.npy and lines of
log.jsonl.
"""
import time

import numpy as np
import torch
from torch.nn import functional

from data.batches import Images, batches, join
from expr_classifier.model import LAYERS, build_classifier, find_architecture, tried_classifier
from training import checkpoints
from training.devices import autocast, layout
from training.distributed import add_up, add_up_gradients, average_buffers, gather, own_part
from training.errors import UserError, check_at_least, check_batch, check_between, check_choice, check_schedules
from training.files import write_atomically
from training.log import write_log
from training.loops import EpochBar, check_finite, epochs_for, least_batch, set_learning_rate
from training.tensorboard import Board


def check_settings(settings):
    """Raise UserError for a constant of expr_classifier/run.py with an impossible value."""
    find_architecture(settings.ARCHITECTURE)
    check_choice("LOSS", settings.LOSS, ("cross_entropy", "squared_error"))
    check_choice("LAYER", settings.LAYER, LAYERS)
    check_at_least(1, settings, "STEPS", "BATCH")
    check_between(0, 1e3, settings, "SHIFT", "WEIGHT_DECAY")
    check_between(0, 180, settings, "TURN")
    check_between(0, .9, settings, "ZOOM", "SMOOTHING")
    check_between(-10, 10, settings, "BALANCE")
    check_schedules(settings, "LEARNING_RATE", most=1)


def loss_function(logits, labels, weights, loss="cross_entropy", smoothing=0.0):
    """Each face's loss (B,), weighted by class: cross-entropy, or half the squared error to one-hot.

    logits (B, classes), labels int64 (B,), weights (classes,); loss, smoothing: as in the settings.
    """
    if loss == "cross_entropy":
        losses = functional.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=smoothing)
    else:
        target = functional.one_hot(labels, logits.shape[1])
        losses = (logits.float().softmax(1) - target).square().sum(1) / 2
    return losses * weights[labels]


def missing_classes(faces):
    """Why no classifier can be trained: fewer than two classes, or one without a training face; else an empty text."""
    if len(faces.classes) < 2:
        return f"only the class {faces.classes[0]}" if faces.classes else "no labels"
    missing = ", ".join(untrained_classes(faces))
    return f"no training faces of {missing}" if missing else ""


def untrained_classes(faces):
    """The names of the classes without a training face."""
    trained = set(faces.labels[faces.rows("train", labelled=True)].tolist())
    return [name for label, name in enumerate(faces.classes) if label not in trained]


def build(settings, faces):
    """The classifier, untrained, that these settings describe for these faces."""
    return tried_classifier(settings.ARCHITECTURE, faces.size, len(faces.classes), faces.channels)


def check_faces(settings, faces, constant=None):
    """Raise UserError where there are too few faces or classes to train with these settings.

    constant: as in check_batch.
    """
    missing = missing_classes(faces)
    if missing:
        raise UserError(faces.name, "labelled training faces of each of at least two classes", missing,
                        "add some, or change the split")
    check_batch(settings.BATCH, len(faces.rows("train", labelled=True)), faces.name, constant)
    check_at_least(least_batch(build(settings, faces)), settings, "BATCH")


def train(faces, settings, folder, seed, device, precision, board=Board(), name="classifier"):
    """Train a classifier on the labelled training faces; returns it, in eval mode.

    settings: the constants of expr_classifier/run.py; name: what its progress bar says. Continues from
    folder/classifier.pt where there is one. Raises UserError where check_faces does, or a loss is not finite.
    """
    check_faces(settings, faces)
    train_rows = faces.rows("train", labelled=True)
    classes = len(faces.classes)
    counts = np.bincount(faces.labels[train_rows], minlength=classes)
    torch.manual_seed(seed)
    generator = torch.Generator(device).manual_seed(seed)
    memory_format = layout(settings.ARCHITECTURE, device, precision)
    model = build(settings, faces).to(device, memory_format=memory_format)
    least = least_batch(model)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=settings.WEIGHT_DECAY, fused=True)
    checkpoint = folder / "classifier.pt"
    done, _ = checkpoints.resume(checkpoint, model, optimizer, generator)
    images = Images(faces, device, memory_format)
    labels = torch.from_numpy(faces.labels).to(device)
    weights = torch.from_numpy(counts ** -float(settings.BALANCE)).float().to(device)
    weights *= len(train_rows) / weights[labels[torch.from_numpy(train_rows)]].sum()

    steps = len(batches(train_rows, settings.BATCH, least=least))
    count = epochs_for(settings.STEPS, steps)
    bar = EpochBar(name, done, count)
    for epoch in bar:
        start = time.perf_counter()
        model.train()
        torch.manual_seed(seed * 1000 + epoch)  # the judge's dropout draws from torch's own generator
        total, seen = torch.zeros(2, device=device), 0              # loss and right answers, summed over faces
        for step, rows in enumerate(batches(train_rows, settings.BATCH, generator, least), epoch * steps):
            set_learning_rate(optimizer, settings.LEARNING_RATE, step / max(count * steps - 1, 1))
            own = own_part(len(rows))
            x = images(rows, generator, settings.FLIP, settings.SHIFT, settings.TURN, settings.ZOOM, part=own)
            with autocast(device, precision):
                logits = model(x)
            losses = loss_function(logits, labels[rows][own], weights, settings.LOSS, settings.SMOOTHING)
            optimizer.zero_grad()
            (losses.sum() / len(rows)).backward()
            add_up_gradients(model)
            optimizer.step()
            total += torch.stack([losses.detach().sum(), (logits.argmax(1) == labels[rows][own]).sum()])
            seen += len(x)
            bar.running(("loss", "train_accuracy"), total, seen)
        loss, accuracy = (add_up(total) / len(train_rows)).tolist()
        average_buffers(model)
        seconds = time.perf_counter() - start
        check_finite(dict(loss=loss), "classifier", epoch + 1, checkpoint)
        model.eval()
        val_accuracy = measure_accuracy(model, faces, faces.rows("val", labelled=True), device)
        means = dict(loss=loss, train_accuracy=accuracy, val_accuracy=val_accuracy)
        write_log(folder, "classifier", epoch + 1, **means, seconds=seconds,
                  images_per_second=len(train_rows) / seconds)
        checkpoints.save_checkpoint(
            checkpoint, model, optimizer, generator, epoch + 1, architecture=settings.ARCHITECTURE, size=faces.size,
            classes=classes, channels=faces.channels)
        board.write("classifier", epoch + 1, means)
        bar.finished(epoch + 1, means)
    return model.eval().requires_grad_(False)


def load_classifier(path, device, memory_format=torch.channels_last):
    """The trained classifier of a checkpoint, in eval mode."""
    model = checkpoints.load_model(path, device, lambda state: build_classifier(
        state["architecture"], state["size"], state["classes"], state["channels"]))
    return model.to(device, memory_format=memory_format).eval().requires_grad_(False)


@torch.no_grad()
def layer_of(model, faces, rows, device, name="last", batch_size=256):
    """A layer of the classifier, float32 (len(rows), k), for the faces of these rows."""
    images, own = Images(faces, device), torch.as_tensor(rows[own_part(len(rows))], dtype=torch.int64)
    parts = (model.layers(images(part))[name].float() for part in own.split(batch_size))     # one empty part of no rows
    return gather(join(parts, len(own)), len(rows)).cpu().numpy()


def measure_accuracy(model, faces, rows, device):
    """The share of rows whose largest output is the face's label; None without labelled faces."""
    if len(rows) == 0:
        return None
    return float((layer_of(model, faces, rows, device).argmax(1) == faces.labels[rows]).mean())


def write_embeddings(model, faces, name, folder, device):
    """Write embeddings.npy, float32 (N, k): the layer called name of every face, in the order of the data."""
    embeddings = layer_of(model, faces, np.arange(len(faces)), device, name)
    write_atomically(folder / "embeddings.npy", lambda file: np.save(file, embeddings))
    return embeddings
