"""What the two training loops share: epochs, schedules and the check of losses."""
import math
from pathlib import Path

import torch
from tqdm import tqdm

from training.distributed import PROCESS, PROCESSES
from training.errors import UserError


def epochs_for(steps, steps_per_epoch):
    """The number of whole epochs, at least one, that comes nearest to this many steps."""
    return max(1, round(steps / steps_per_epoch))


def epochs(name, done, count):
    """The epochs that are left, from 0, under one progress bar. The bar is hidden where the output is not a terminal,
    and in all processes but the first.
    """
    return tqdm(range(done, count), name, count, initial=done, disable=True if PROCESS > 0 else None, unit="epoch")


def scheduled(schedule, progress):
    """The value of a (first, last) schedule, linear between, at a progress from 0, the first step, to 1, the last."""
    first, last = schedule
    return first + (last - first) * progress


def set_learning_rate(optimizer, schedule, progress, warm_up=0.0):
    """Set the scheduled learning rate in the optimizer, and return it; warm_up: the share of all steps in which it
    rises from 0 to that of the schedule.
    """
    rate = scheduled(schedule, progress)
    if progress < warm_up:
        rate *= progress / warm_up
    optimizer.param_groups[0]["lr"] = rate
    return rate


def least_batch(model):
    """The fewest faces that a training batch may have. Batch norm has no variance of a single value, and 4 faces for
    each process leave it two where only every other face is decoded.
    """
    norms = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)
    return 4 * PROCESSES if any(isinstance(module, norms) for module in model.modules()) else 1


def check_finite(values, stage, epoch, checkpoint):
    """Raise UserError where a loss is not finite; the checkpoint of the epoch before is kept."""
    bad = {name: value for name, value in values.items() if value is not None and not math.isfinite(value)}
    if bad:
        kept = f"{checkpoint} keeps epoch {epoch - 1}" if Path(checkpoint).exists() else "nothing was saved yet"
        raise UserError(f"{stage}, epoch {epoch}", "finite losses", bad,
                        f"lower LEARNING_RATE or the weight of that term, or set PRECISION=fp32 ({kept})")
