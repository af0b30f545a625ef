"""The losses of a run and pictures of its reconstructions for TensorBoard, where LOG asks for them.

In: LOG and plain values. Out: files in experiments/N/tensorboard/; to be seen by: tensorboard --logdir experiments
"""
import torch

from training.distributed import PROCESS
from training.errors import UserError, check_choice


def check_log(log):
    """Raise UserError for a LOG that is unknown, or for which nothing is installed."""
    check_choice("LOG", log, (None, "tensorboard"))
    if log == "tensorboard":
        try:
            import torch.utils.tensorboard              # noqa: F401, not at the top: it may not be there
        except ImportError as error:
            raise UserError("LOG=tensorboard", "tensorboard, installed", str(error).split("\n")[0],
                            "pip install tensorboard, or leave LOG out") from None


class Board:
    """What is written for TensorBoard: nothing where log is None, and by the first process alone."""

    def __init__(self, log=None, folder=None):
        self.writer = None
        if log == "tensorboard" and PROCESS == 0:
            from torch.utils.tensorboard import SummaryWriter
            self.writer = SummaryWriter(folder / "tensorboard")

    def write(self, stage, epoch, values, pictures=None):
        """Write the values of an epoch, from 1, except for those that are None, and a grid of pictures.

        pictures: a function that returns its rows, (B, C, H, W) in 0..1 each; it is called only where they are written.
        """
        if self.writer is None:
            return
        for name, value in values.items():
            if value is not None:
                self.writer.add_scalar(f"{stage}/{name}", value, epoch)
        if pictures is not None:
            from torchvision.utils import make_grid
            rows = [row.float().cpu().clamp(0, 1) for row in pictures()]
            self.writer.add_image(f"{stage}/reconstructions", make_grid(torch.cat(rows), len(rows[0])), epoch)
        self.writer.flush()
