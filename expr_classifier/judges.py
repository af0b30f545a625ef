"""Networks that measure what a VAE has learned, each a classifier: a judge of expressions, one that tells people apart,
and the run's own classifier again, from another seed.

In: Faces. Out: judge.pt, identity.pt and second.pt in a run folder, trained on its training faces, or read from there.
For the rest they have the settings at the head of expr_classifier/run.py.
"""
import json
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import expr_classifier.run as classifier
import training
from data.faces import EXPRESSIONS
from expr_classifier.model import ARCHITECTURES
from training import storage
from training.beside import beside

# --- judge.pt: says which expression a face has; neither the VAE nor its metric has seen it
JUDGE_ARCHITECTURE = "judge"    # one of expr_classifier/model.py, or "none": no scores of edits
JUDGE_STEPS = 600               # batches, in whole epochs
JUDGE_BATCH = 64                # faces
JUDGE_RATE = (2e-3, 1e-4)       # Adam's, at the first and the last step
JUDGE_SEED = 1000               # added to the run's seed

# --- second.pt: how far two classifiers agree
SECOND_SEED = 500               # added to the run's seed

# --- identity.pt: tells people apart, where they are known
IDENTITY_STEPS = 420            # batches, in whole epochs; 0: no scores of identity
IDENTITY_SEED = 1500            # added to the run's seed

CLASSIFIER = training.constants(classifier)     # as at the head of that file, whatever the run's own are


def check_settings():
    """Raise UserError for a constant that cannot be."""
    training.check_choice("JUDGE_ARCHITECTURE", JUDGE_ARCHITECTURE, ("none", *ARCHITECTURES))
    training.check_at_least(1, JUDGE_STEPS=JUDGE_STEPS)
    training.check_schedules(JUDGE_RATE=JUDGE_RATE)


def train_network(name, faces, folder, seed, device, classes=len(EXPRESSIONS), precision="fp32", **settings):
    """A further classifier, kept as folder/name.pt: read from there if it has these settings, else trained.

    settings: constants of expr_classifier/run.py. None where there are too few faces to train it.
    """
    path = folder / f"{name}.pt"
    wanted = json.dumps([seed, faces.fingerprint, precision, settings], sort_keys=True)
    if not path.exists() or storage.load_checkpoint(path).get("settings") != wanted:
        try:
            with training.changed_constants(classifier, **settings), tempfile.TemporaryDirectory() as scratch:
                classifier.train(faces, Path(scratch), seed, device, precision, classes)
                state = storage.load_checkpoint(Path(scratch) / "classifier.pt")
        except training.UserError as error:
            print(f"no {name}.pt, without its scores: {error}")
            return None
        storage.write_atomically(path, lambda file: torch.save({**state, "settings": wanted}, file))
    return classifier.load_classifier(path, device)


def judge_settings():
    """The classifier's constants for the judge, the same whatever recipe the run followed."""
    return {**CLASSIFIER, "ARCHITECTURE": JUDGE_ARCHITECTURE, "STEPS": JUDGE_STEPS, "BATCH": JUDGE_BATCH,
            "LEARNING_RATE": JUDGE_RATE}


def train_judge(faces, folder, seed, device):
    """The judge of a run with this seed; None where JUDGE_ARCHITECTURE is "none" or there are too few faces."""
    if JUDGE_ARCHITECTURE == "none":
        return None
    return train_network("judge", faces, folder, seed + JUDGE_SEED, device, **judge_settings())


def train_second(faces, folder, seed, device, precision):
    """The classifier of a run with this seed and precision again, but of another seed; None where it cannot be."""
    return train_network("second", faces, folder, seed + SECOND_SEED, device, precision=precision,
                         **training.constants(classifier))


def train_second_beside(faces, folder, seed, device, precision):
    """The context in which train_second's work is done beside the block, where it is not done yet."""
    if (folder / "second.pt").exists():
        return nullcontext()
    return beside(faces, device, train_network, "second", faces, folder, seed + SECOND_SEED, device,
                  precision=precision, **training.constants(classifier))


def train_identifier(faces, folder, seed, device):
    """A network whose second-last layer tells people apart: a classifier of who it is in place of which expression.

    None where fewer than two known people have training faces, or IDENTITY_STEPS is 0.
    """
    rows = faces.rows("train")
    rows = rows[faces.identities[rows] >= 0]
    people = np.full(len(faces), -1)
    names, people[rows] = np.unique(faces.identities[rows], return_inverse=True)
    if len(names) < 2 or not IDENTITY_STEPS:
        return None
    training_faces = replace(faces, labels=people, split=np.where(faces.split == 0, 0, -1))
    settings = {**judge_settings(), "ARCHITECTURE": "light", "STEPS": IDENTITY_STEPS, "TURN": 0., "ZOOM": 0.}
    return train_network("identity", training_faces, folder, seed + IDENTITY_SEED, device, len(names), **settings)
