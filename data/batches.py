"""Faces as batches of pixels on a device.

In: Faces and row numbers. Out: float32 (B, C, H, W) in 0..1, as they are or augmented; C is 1, of faces in colour 3.
"""
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional


ON_GPU = 2 ** 32        # bytes: memory-mapped faces up to this size are copied to a GPU, larger ones batch by batch
CONTRAST = 4e-4         # added to a face's variance (pixels in 0..1), so that faint contrast is not fully amplified


def contrast_normalization(channels=1):
    """A layer that brings each face to mean 0 and standard deviation 1, so that light and contrast matter less; over
    all channels together, so that colours stay.
    """
    if channels == 1:
        return nn.InstanceNorm2d(1, eps=CONTRAST)
    return nn.GroupNorm(1, channels, eps=CONTRAST, affine=False)


def as_channels(x):
    """Tensors (B, C, H, W) of pictures as arrays have them, (B, H, W) or (B, H, W, 3)."""
    return x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2)


def as_pictures(x):
    """Tensors (B, H, W), or of three channels (B, H, W, 3), of (B, C, H, W)."""
    return x[:, 0] if x.shape[1] == 1 else x.permute(0, 2, 3, 1)


class Images:
    """The faces' pixels as batches on a device: uint8 there, or read batch by batch where they are memory-mapped; a GPU
    holds up to ON_GPU of these too.
    """

    def __init__(self, faces, device, layout=torch.channels_last):
        mapped = isinstance(faces.images, np.memmap) and (device.type == "cpu" or faces.images.nbytes > ON_GPU)
        self.device, self.layout = device, layout
        self.images = faces.images if mapped else faces.images_on(device)

    def __call__(self, rows, generator=None, flip=False, shift=0, turn=0., zoom=0., move=0., part=slice(None)):
        """float32 (B, C, H, W) in 0..1 of rows int64 (B,), or of a part of them, a slice.

        With a generator each face is mirrored with probability 1/2 (flip), moved by up to shift whole pixels each way,
        turned by up to turn degrees, stretched each way by up to the share zoom and moved by up to move pixels each
        way, its border repeated. It draws for all rows, whatever the part.
        """
        if isinstance(self.images, np.memmap):
            x = torch.from_numpy(self.images[rows[part].cpu().numpy()]).to(self.device)
        else:
            x = self.images[rows[part]]
        count, augment = len(rows), generator is not None
        if augment and (flip or shift):
            x = _augment(x, lambda low, high: torch.randint(low, high, (count, 1), generator=generator,
                                                            device=x.device)[part], flip, shift)
        x = as_channels(x).to(torch.float32, memory_format=self.layout) / 255
        if augment and (turn or zoom or move):
            x = warp(x, count, generator, turn, zoom, move, part)
        return x


def _augment(x, draw, flip, shift):
    """Mirror and move uint8 (B, H, W) or (B, H, W, 3), each face by its own draw(low, high), whole numbers (B, 1) below
    high.
    """
    count, size = x.shape[:2]
    line = torch.arange(size, device=x.device)
    down, across = line + draw(-shift, shift + 1), line + draw(-shift, shift + 1)       # (B, size)
    if flip:
        across = torch.where(draw(0, 2) == 1, size - 1 - across, across)
    face = torch.arange(count, device=x.device)[:, None, None]
    return x[face, down.clamp(0, size - 1)[:, :, None], across.clamp(0, size - 1)[:, None, :]]


def warp(x, count, generator, turn=0., zoom=0., move=0., part=slice(None)):
    """Turn, stretch and move float32 (B, C, H, W) bilinearly, each face by its own draw, its border repeated.

    By up to turn degrees, the share zoom each way, and move pixels each way. x: the part of count faces; it draws for
    all of them.
    """
    draw = lambda most: most * (2 * torch.rand(count, generator=generator, device=x.device)[part] - 1)
    angle, across, down = draw(math.radians(turn)), 1 + draw(zoom), 1 + draw(zoom)
    right = below = torch.zeros_like(angle)
    if move:
        right, below = draw(2 * move / x.shape[3]), draw(2 * move / x.shape[2])         # 2: the width is -1..1
    rows = [angle.cos() * across, -angle.sin() * down, right, angle.sin() * across, angle.cos() * down, below]
    if not len(x):                                              # the part of one of several processes
        return x
    grid = functional.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), x.shape, align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def batches(rows, batch_size, generator=None, least=1):
    """Row numbers, int64 (B,) each, the last one ragged, none empty; in random order if a generator is given.

    A last batch of fewer rows than least joins the one before.
    """
    rows = torch.as_tensor(rows, dtype=torch.int64)
    if len(rows) == 0:
        return ()
    if generator is not None:
        order = torch.randperm(len(rows), generator=generator, device=generator.device)
        rows = rows.to(generator.device)[order]
    parts = rows.split(batch_size)
    if len(parts) > 1 and len(parts[-1]) < least:
        parts = (*parts[:-2], torch.cat(parts[-2:]))
    return parts


def evenly_spaced(rows, most):
    """At most so many of the rows, evenly spaced."""
    return rows[::max(1, -(-len(rows) // most))]


def join(parts, count):
    """The parts (b, ...) of count rows, one after the other, as one tensor (count, ...), each copied as it comes.

    Thousands of small parts kept till the end would scatter over the memory: 500 MiB more for a million faces.
    """
    whole = None
    start = 0
    for part in parts:
        if whole is None:
            whole = part.new_empty(count, *part.shape[1:])
        whole[start:start + len(part)] = part
        start += len(part)
    return whole
