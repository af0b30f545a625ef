"""Networks that measure what a VAE has learned, each a classifier: a judge of classes, one that tells people apart,
and a second classifier like the run's, from another seed.

In: Faces and settings. Out: judge.pt, identity.pt and second.pt in a run folder, trained on its training faces, or
read from there.
"""
import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from expr_classifier.model import ARCHITECTURES
from expr_classifier.train import load_classifier, train
from training import checkpoints
from training.errors import UserError, check_at_least, check_choice, check_schedules, check_seeds
from training.files import write_atomically

CONSTANTS = ("JUDGE", "SECOND", "IDENTITY")     # begin the names of the constants of experiments.py about them


def check_settings(settings):
    """Raise UserError for a constant of experiments.py about these networks with an impossible value."""
    check_choice("JUDGE_ARCHITECTURE", settings.JUDGE_ARCHITECTURE, ("none", *ARCHITECTURES))
    check_at_least(1, settings, "JUDGE_STEPS", "JUDGE_BATCH")
    check_at_least(0, settings, "IDENTITY_STEPS")
    check_seeds(settings, "JUDGE_SEED", "SECOND_SEED", "IDENTITY_SEED")
    check_schedules(settings, "JUDGE_RATE", most=1)


def train_network(name, faces, settings, folder, seed, device, precision):
    """A further classifier, kept as folder/name.pt: read from there if it has these settings, else trained.

    settings: constants of expr_classifier/run.py. None where there are too few faces to train it.
    """
    path = folder / f"{name}.pt"
    wanted = json.dumps([seed, faces.fingerprint, precision, asdict(settings)], sort_keys=True)
    if not path.exists() or checkpoints.load_checkpoint(path).get("settings") != wanted:
        try:
            with tempfile.TemporaryDirectory() as scratch:
                train(faces, settings, Path(scratch), seed, device, precision, name=name)
                state = checkpoints.load_checkpoint(Path(scratch) / "classifier.pt")
        except UserError as error:
            print(f"no {name}.pt, and no scores that need it: {error}")
            return None
        write_atomically(path, lambda file: torch.save({**state, "settings": wanted}, file))
    return load_classifier(path, device)


def judge_settings(settings, defaults):
    """The settings of the judge. settings: the constants of experiments.py; defaults: those of expr_classifier/run.py
    as they stand there, so that the judge is the same whatever settings the run had.
    """
    return replace(defaults, ARCHITECTURE=settings.JUDGE_ARCHITECTURE, STEPS=settings.JUDGE_STEPS,
                   BATCH=settings.JUDGE_BATCH, LEARNING_RATE=settings.JUDGE_RATE)


def train_judge(faces, settings, defaults, folder, seed, device, precision):
    """The judge of a run with this seed; None where JUDGE_ARCHITECTURE is "none" or there are too few faces.

    settings, defaults: as in judge_settings.
    """
    if settings.JUDGE_ARCHITECTURE == "none":
        return None
    return train_network("judge", faces, judge_settings(settings, defaults), folder, seed + settings.JUDGE_SEED, device,
                         precision)


def train_identifier(faces, settings, defaults, folder, seed, device, precision):
    """A network whose second-last layer tells people apart: a classifier of people instead of classes.

    settings, defaults: as in judge_settings. None where fewer than two known people have training faces, or
    IDENTITY_STEPS is 0.
    """
    rows = faces.rows("train")
    rows = rows[faces.identities[rows] >= 0]
    people = np.full(len(faces), -1)
    names, people[rows] = np.unique(faces.identities[rows], return_inverse=True)
    if len(names) < 2 or not settings.IDENTITY_STEPS:
        return None
    training_faces = replace(faces, labels=people, classes=tuple(map(str, names)),
                             split=np.where(faces.split == 0, 0, -1))
    of_network = replace(judge_settings(settings, defaults), ARCHITECTURE="light", STEPS=settings.IDENTITY_STEPS,
                         TURN=0.0, ZOOM=0.0)
    return train_network("identity", training_faces, of_network, folder, seed + settings.IDENTITY_SEED, device,
                         precision)
