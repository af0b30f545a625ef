"""What the two training loops share: epochs, schedules and the check of losses."""
import math
import time

import torch
from tqdm import tqdm

from training.distributed import PROCESS, PROCESSES
from training.errors import UserError


def epochs_for(steps, steps_per_epoch):
    """The number of whole epochs, at least one, that comes nearest to this many steps."""
    return max(1, round(steps / steps_per_epoch))


class EpochBar:
    """Iterates over the remaining epochs, counted from 0, with one progress bar that shows the current losses. If the
    output is not a terminal, prints one line per epoch instead, at most one a second. Only the first process shows
    anything.
    """

    def __init__(self, name, done, count):
        self.name, self.count, self.seconds = name, count, time.monotonic()
        self.bar = tqdm(range(done, count), name, count, initial=done, disable=True if PROCESS > 0 else None,
                        unit="epoch")

    def __iter__(self):
        return iter(self.bar)

    def a_second_has_passed(self):
        """Whether a second has passed since this was last so."""
        passed = time.monotonic() > self.seconds + 1
        if passed:
            self.seconds = time.monotonic()
        return passed

    def running(self, names, sums, faces):
        """Show the means of an epoch so far, at most once a second, as the sums have to come from the device for it."""
        if not self.bar.disable and self.a_second_has_passed():
            self.bar.set_postfix_str(losses_text(dict(zip(names, (sums / faces).tolist()))))

    def finished(self, epoch, losses):
        """Show the losses, a dict, of a finished epoch, from 1."""
        if not self.bar.disable:
            self.bar.set_postfix_str(losses_text(losses))
        elif PROCESS == 0 and (self.a_second_has_passed() or epoch == self.count):
            print(f"{self.name}, epoch {epoch} of {self.count}: {losses_text(losses)}", flush=True)


def losses_text(losses):
    """Losses as text, without those that are not measured or not in use."""
    return ", ".join(f"{name} {value:.4g}" for name, value in losses.items() if value)


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
    """Raise UserError where a loss is not finite; checkpoint: where that of the epoch before is kept, or None."""
    bad = {name: value for name, value in values.items() if value is not None and not math.isfinite(value)}
    if bad:
        kept = "nothing was saved yet"
        if checkpoint is not None and checkpoint.exists():
            kept = f"{checkpoint} keeps epoch {epoch - 1}"
        raise UserError(f"{stage}, epoch {epoch}", "finite losses", bad,
                        f"lower LEARNING_RATE or the weight of that term, or set PRECISION=fp32 ({kept})")
