"""Pictures in the forms that people have, as squares of one size.

In: arrays of any usual shape and type, or Pillow's pictures.
Out: uint8 (N, size, size), or in colour (N, size, size, 3).
"""
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn import functional
from tqdm import tqdm

from data.batches import as_pictures
from training.errors import UserError

CHUNK = 4096                    # pictures looked at in one go
LUMA = (.299, .587, .114)       # of red, green and blue in a grey level (ITU-R BT.601)
GROUND = 127.5                  # grey level that is laid under transparent pixels
RANGES = (255, 1023, 4095, 65535)       # the largest values of 8, 10, 12 and 16 bits
OVERSHOOT = 0.1                 # how far floats in 0..1 may lie outside it, as resizing takes them
DARK = 16                       # floats in 0..255 have a larger one


def squares(images, size, where, colour=False):
    """uint8 (N, size, size) of images (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1, 3 or 4 channels; if colour,
    (N, size, size, 3) of those with more than one.

    Their values: whole numbers of 8, 10, 12 or 16 bits, by the largest one that they have; or floats in 0..255, or in
    0..1 and little outside it, which are clipped. Pictures that are not square are cut to their middle, and resized
    with antialiasing. uint8 squares of this size are returned as they are, memory-mapped or not. where: the path shown
    in errors. Raises UserError for any other shape, type or value.
    """
    channels_last = images.ndim == 4 and images.shape[3] in (1, 3, 4)
    channels_first = images.ndim == 4 and not channels_last and images.shape[1] in (1, 3, 4)
    if not images.size or not (images.ndim == 3 or channels_last or channels_first):
        raise UserError(where, "images (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 channels",
                        f"shape {images.shape}", "save the pictures in one of these shapes")
    height, width = images.shape[2:] if channels_first else images.shape[1:3]
    colour = colour and images.ndim == 4 and images.shape[1 if channels_first else 3] > 1
    if images.dtype == np.uint8 and images.shape[1:] == ((size, size, 3) if colour else (size, size)):
        return images
    scale = _scale(images, where)
    left, top, right, bottom = middle(width, height)
    side = right - left
    if height != width:
        print(f"{where}: cut {len(images)} images of {width}x{height} pixels to the square in their middle")
    if not colour and images.ndim == 4 and images.shape[1 if channels_first else 3] > 1:
        print(f"{where}: colours become grey")
    if side != size:
        print(f"{where}: resized {len(images)} images from {side}x{side} to {size}x{size} pixels")
    out = np.empty((len(images), size, size, 3)[:4 if colour else 3], np.uint8)
    for start in range(0, len(images), CHUNK):
        x = torch.from_numpy(np.array(images[start:start + CHUNK], np.float32))
        x = (x * scale).clamp(0, 255)
        if channels_last:
            x = x.movedim(3, 1)
        x = _flatten(x.reshape(len(x), -1, height, width)[:, :, top:bottom, left:right])
        if not colour:
            x = _grey(x)
        if side != size:
            x = functional.interpolate(x, (size, size), mode="bilinear", antialias=True)
        out[start:start + CHUNK] = as_pictures(x).round().clamp(0, 255).byte().numpy()
    return out


def middle(width, height):
    """The box (left, top, right, bottom) of the square in the middle of a picture."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _flatten(x):
    """Pictures (N, C, H, W) in 0..255 without transparency: of four channels the last is opacity."""
    if x.shape[1] < 4:
        return x
    opacity = x[:, 3:] / 255
    return opacity * x[:, :3] + (1 - opacity) * GROUND


def _grey(x):
    """Grey levels (N, 1, H, W) of pictures (N, C, H, W): C = 1, or 3 (red, green, blue)."""
    return x if x.shape[1] == 1 else sum(weight * x[:, c:c + 1] for c, weight in enumerate(LUMA))


def _scale(images, where):
    """What the images' values are multiplied by to lie in 0..255."""
    expected = "values of 8, 10, 12 or 16 bits, or floats in 0..1 or 0..255"
    if images.dtype.kind not in "buif":
        raise UserError(where, f"images: {expected}", images.dtype, "save them as uint8")
    if images.dtype == np.uint8:
        return 1.0
    extremes = [(part.min(), part.max()) for part in np.array_split(images, -(-len(images) // CHUNK))]
    low, high = float(np.min(extremes)), float(np.max(extremes))                # NaN if there is one
    if not np.isfinite([low, high]).all():
        count = sum(int((~np.isfinite(image)).sum()) for image in images)
        raise UserError(where, f"images: {expected}", f"{count} NaN or infinite", "drop these pictures")
    floats = images.dtype.kind == "f"
    if floats and -OVERSHOOT <= low and high <= 1 + OVERSHOOT:
        return 255.0
    if floats and 0 <= low and high <= DARK:
        raise UserError(where, f"images: {expected}", f"{images.dtype} from {low:g} to {high:g}, which may be either",
                        "if white is 1, save (255 * images).clip(0, 255).astype(numpy.uint8); if it is 255, "
                        "images.astype(numpy.uint8)")
    ranges = {"b": (1,), "f": (255,)}.get(images.dtype.kind, RANGES)
    if low < 0 or high > ranges[-1]:
        raise UserError(where, f"images: {expected}", f"{images.dtype} from {low:g} to {high:g}",
                        "scale them to 0..255 and save images.round().astype(numpy.uint8)")
    return 255 / next(largest for largest in ranges if high <= largest)


# --- Pillow's pictures

def read_pictures(open_one, items, size, where, colour=False, threads=None):
    """uint8 (N, size, size), or in colour (N, size, size, 3), of the pictures that can be read, and which they are,
    bool (len(items),).

    open_one: gives the Pillow picture of an item, for example of a path; called in several threads, or in so many.
    Pictures that cannot be read are left out with a count; other than square ones are cut to their middle. Those of up
    to 16 bits a pixel all have one range.
    where: the path shown. Raises UserError where none can be read.
    """
    images = np.empty((len(items), size, size, 3)[:4 if colour else 3], np.uint8)
    read, cropped = np.zeros(len(items), bool), 0
    bad, deep = [], {}                                          # deep: the largest value of each picture of 16 bits
    with ThreadPoolExecutor(threads) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)         # Pillow refuses what is twice as large
        results = pool.map(lambda item: _read_one(open_one, item, size, colour), items)
        for row, (image, was_square, largest, error) in enumerate(tqdm(results, "images", len(items), disable=None)):
            if error:
                bad.append(f"{items[row]}: {error}")
                continue
            images[row], read[row] = image, True
            cropped += not was_square
            if largest:
                deep[row] = largest
        for row in deep:
            if deep[row] < max(deep.values()):
                images[row] = _read_one(open_one, items[row], size, colour, max(deep.values()))[0]
    if bad:
        print(f"{where}: left out {len(bad)} of {len(items)} pictures that cannot be read:\n  "
              + "\n  ".join(bad[:5]) + ("\n  ..." if len(bad) > 5 else ""))
    if cropped:
        print(f"{where}: cut {cropped} images that are not square to the square in their middle")
    if not read.any():
        raise UserError(where, "pictures that can be read", f"none of {len(items)}; {bad[0]}",
                        "look at the files: they may be damaged")
    return images[read], read


def _read_one(open_one, item, size, colour, largest=None):
    """(image uint8 (size, size) or (size, size, 3), whether it was square, largest, None), or three None and an error.

    largest: the value of white in a picture of up to 16 bits a pixel, None: by its own values; None for others.
    """
    try:
        with open_one(item) as image:
            largest = largest or _largest(image)
            return *square(image, size, colour, largest), largest, None
    except Exception as error:                                      # Pillow raises half a dozen kinds here
        return None, None, None, str(error).split(" '")[0].split(" <")[0] or type(error).__name__


def _largest(image):
    """The least of RANGES that holds the values of a Pillow picture of up to 16 bits a pixel; None for others."""
    if image.mode.startswith("I"):
        top = int(np.asarray(image).max())
        return next((largest for largest in RANGES if top <= largest), top)


def square(image, size, colour=False, largest=None):
    """uint8 (size, size), or in colour (size, size, 3), of a Pillow picture of any mode and size, and whether it was
    square.

    largest: the value of white in a picture of up to 16 bits a pixel, None: by its own values. Raises ValueError for
    floating-point pixels.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if image.mode.startswith("I"):
        scaled = np.asarray(image) * (255 / (largest or _largest(image)))
        image = Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))
    if image.mode == "LAB":                                         # Pillow makes only RGB of it
        image = image.convert("RGB")
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")                               # hidden pixels must not show
        ground = Image.new("RGBA", image.size, (round(GROUND),) * 3 + (255,))
        image = Image.alpha_composite(ground, image)
    image = image.convert("RGB" if colour else "L")
    was_square = image.width == image.height
    if image.size != (size, size):                                  # Pillow's bilinear filter is antialiased
        image = image.resize((size, size), Image.BILINEAR, middle(*image.size))
    return np.asarray(image), was_square
