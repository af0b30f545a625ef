"""data/pixels.py: pictures in every form that people have become the same grey squares."""
import warnings

import numpy as np
import pytest
from PIL import Image, ImageCms

from data import pixels
from data.pixels import read_pictures, squares


def test_squares_of_the_right_size_are_returned_as_they_are(images):
    assert squares(images, 16, "here") is images


@pytest.mark.parametrize("form", [
    lambda a: a[..., None], lambda a: a[:, None], lambda a: a[..., None].repeat(3, 3),
    lambda a: a[:, None].repeat(3, 1),
    lambda a: np.concatenate([a[..., None].repeat(3, 3), np.full((*a.shape, 1), 255, np.uint8)], 3),
    lambda a: a / 255, lambda a: a.astype(np.float32), lambda a: a.astype(np.int64),
    lambda a: a.astype(np.uint16) * 257,
    lambda a: (a / 255 * 1023).round().astype(np.uint16), lambda a: (a / 255 * 4095).round().astype(np.int32),
    lambda a: np.asfortranarray(a)[..., None]])
def test_every_form_gives_the_same_grey_levels(images, form):
    images[0, 0, 0] = 255                                       # or 10 bits could be 9 bits
    found = squares(form(images), 16, "here")
    assert found.dtype == np.uint8 and np.abs(found.astype(int) - images).max() <= 1


def test_colours_become_the_grey_levels_of_pillow():
    colours = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    slow = np.stack([np.asarray(Image.fromarray(picture).convert("L")) for picture in colours])
    assert np.abs(squares(colours, 16, "here").astype(int) - slow).max() <= 1


def test_transparent_pixels_show_the_ground_and_not_what_is_hidden(images):
    opacity = np.zeros((*images.shape, 1), np.uint8)
    opacity[:, :8] = 255
    found = squares(np.concatenate([images[..., None].repeat(3, 3), opacity], 3), 16, "here")
    assert np.abs(found[:, :8].astype(int) - images[:, :8]).max() <= 1 and (found[:, 8:] == 128).all()


def test_pictures_that_are_not_square_are_cut_to_their_middle_and_said_so(images, capsys):
    wide = np.pad(images, ((0, 0), (0, 0), (2, 4)))
    assert np.array_equal(squares(wide, 16, "here"), wide[:, :, 3:19])
    assert "22x16" in capsys.readouterr().out


@pytest.mark.parametrize("size", [8, 24])
def test_resizing_equals_pillows_antialiased_bilinear_filter(size, images):
    out = squares(images, size, "here")
    slow = np.stack([np.array(Image.fromarray(face).resize((size, size), Image.BILINEAR)) for face in images])
    assert out.shape == (70, size, size) and np.abs(out.astype(int) - slow).max() <= 1


def test_chunks_give_the_same(images, monkeypatch):
    once = squares(images / 255, 24, "here")
    monkeypatch.setattr(pixels, "CHUNK", 11)
    assert np.array_equal(squares(images / 255, 24, "here"), once)


@pytest.mark.parametrize("form, found", [
    (lambda a: a[0, 0], "(16,)"), (lambda a: a[..., None].repeat(2, 3), "(70, 16, 16, 2)"), (lambda a: a[:0], "(0,"),
    (lambda a: a * 1j, "complex"), (lambda a: a.astype(str), "<U"), (lambda a: a * -1., "from -"),
    (lambda a: a.astype(int) * 1000, "int64 from"), (lambda a: np.where(a > 200, np.inf, a), "infinite")])
def test_what_is_no_picture_is_refused(images, form, found, user_error):
    user_error(lambda: squares(form(images), 16, "here"), "here", found)


@pytest.mark.parametrize("largest", [1 + 1e-7, 1.1])
def test_floats_a_little_outside_0_to_1_are_clipped(images, largest):
    x = images / 255
    x[0, 0, :2] = largest, -.05
    found = squares(x, 16, "here")
    assert found[0, 0, :2].tolist() == [255, 0] and np.array_equal(found[1:], images[1:])


@pytest.mark.parametrize("largest", [1.3, 3.5, 16])
def test_floats_that_may_be_0_to_1_or_0_to_255_are_refused(images, largest, user_error):
    user_error(lambda: squares(images / images.max() * largest, 16, "here"), f"0.", f"to {largest:g}", "if white is 1")
    assert squares(images / images.max() * 17., 16, "here").max() == 17


# --- Pillow's pictures

def read(pictures, size=16, **more):
    return read_pictures(lambda row: pictures[row].copy(), range(len(pictures)), size, "here", **more)[0]


def test_pictures_of_16_bits_have_one_range(images):
    deep = images[:3].astype(np.uint16) * 257
    deep[0], deep[2] = images[0], 4095 / 255 * images[2]        # dark ones, which alone would be of 8 and 12 bits
    found = read([Image.fromarray(picture) for picture in deep])
    assert np.abs(found[0].astype(int) - images[0] / 257).max() <= .5 and np.array_equal(found[1], images[1])
    assert np.abs(found[2].astype(int) - images[2] / 16).max() <= 1
    assert np.array_equal(read([Image.fromarray(deep[0])])[0], images[0])


def test_lab_pictures_are_read_in_grey_as_in_colour(images):
    pictures = [Image.fromarray(picture).convert("RGB") for picture in images[:3]]
    lab = [ImageCms.profileToProfile(picture, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"),
                                     outputMode="LAB") for picture in pictures]
    colour = read(lab, colour=True)
    assert np.abs(read(lab).astype(int) - images[:3]).max() <= 6 and colour.shape == (3, 16, 16, 3)


@pytest.mark.filterwarnings("error")
def test_large_pictures_are_read_without_a_warning(images):
    def opened(row):
        warnings.warn("Image size exceeds limit", Image.DecompressionBombWarning)
        return Image.fromarray(images[row])
    assert np.array_equal(read_pictures(opened, range(3), 16, "here")[0], images[:3])
