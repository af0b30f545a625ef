"""Checkpoints: weights, optimiser and random state in one file, read without running code.

In: torch modules. Out: .pt files in a run folder. Knows nothing of faces or models.
"""
import zipfile
from pathlib import Path

import torch

from training.errors import UserError
from training.files import write_atomically


def save_checkpoint(path, model, optimizer, generator, epoch, **more):
    """Write weights, optimiser, finished epochs and RNG state; more: further tensors or plain values."""
    state = dict(model=model.state_dict(), optimizer=optimizer.state_dict(), rng=generator.get_state(), epoch=epoch)
    write_atomically(path, lambda file: torch.save({**state, **more}, file))


def load_checkpoint(path, device="cpu"):
    """Read a checkpoint's dict without pickle's code; raises UserError where it is missing or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()                         # torch.load does not look at checksums
        if damaged:
            raise ValueError(f"{damaged} in it has another checksum")
        state = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(state, dict) or "model" not in state:
            raise ValueError("no weights in it")
        return state
    except Exception as error:                                  # torch raises half a dozen kinds here
        raise UserError(path, "a checkpoint of this program", str(error).split("\n")[0] or type(error).__name__,
                        "restore it, or delete it: RESUME trains that stage again") from None


def load_model(path, device, build):
    """The model that build(state) makes of a checkpoint's dict, with its weights.

    Raises UserError where it is missing, damaged, or of another kind of network, as where a user's own one has changed.
    """
    state = load_checkpoint(path, device)
    try:
        model = build(state)
        model.load_state_dict(state["model"])
        return model
    except UserError:
        raise
    except Exception as error:                                  # KeyError, RuntimeError, ...
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(path, "a checkpoint of this network", found,
                        "restore it, and the network's code as it was, or start a new run") from None


def resume(path, model, optimizer, generator):
    """Load a checkpoint where there is one; returns (number of epochs that are done, its dict).

    Raises UserError where it is damaged, or of another model.
    """
    if not Path(path).exists():
        return 0, {}
    state = load_checkpoint(path, next(model.parameters()).device)
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["rng"].cpu())
        return int(state["epoch"]), state
    except Exception as error:                                  # KeyError, ValueError, RuntimeError, ...
        raise UserError(path, "a checkpoint of this stage of the run", " ".join(str(error).split())[:200],
                        "restore it, or delete it: RESUME trains that stage again") from None
