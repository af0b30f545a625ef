"""Batches of faces: rows, pixels on a device, augmentation."""
import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

import data.batches
from data.batches import Images, batches, join, warp
from layouts import memory_mapped


def test_batches_hold_each_row_once_and_the_last_one_is_ragged():
    assert [b.tolist() for b in batches(np.array([5, 3, 9, 1, 7]), 2)] == [[5, 3], [9, 1], [7]]


def test_a_single_row_is_one_batch_and_no_rows_are_none():
    assert [b.tolist() for b in batches(np.array([4]), 64)] == [[4]]
    assert len(batches(np.array([], int), 64)) == 0


def test_a_last_batch_of_too_few_rows_joins_the_one_before():
    sizes = lambda count, least: [len(batch) for batch in batches(np.arange(count), 4, least=least)]
    assert sizes(10, 2) == [4, 4, 2] and sizes(10, 3) == [4, 6] and sizes(2, 3) == [2]
    assert torch.cat(batches(np.arange(10), 4, least=3)).tolist() == list(range(10))


def test_memory_mapped_faces_are_copied_to_a_gpu_up_to_a_limit(small_faces, tmp_path, monkeypatch):
    """The meta device stands for a GPU."""
    mapped, meta = memory_mapped(small_faces, tmp_path / "images.npy"), torch.device("meta")
    assert torch.is_tensor(Images(mapped, meta).images)
    monkeypatch.setattr(data.batches, "ON_GPU", 10)
    assert isinstance(Images(mapped, meta).images, np.memmap)


def test_parts_are_joined_in_their_order():
    whole = torch.arange(14.).view(7, 2)
    assert torch.equal(join(iter(whole.split(3)), 7), whole)


def test_shuffled_batches_are_a_permutation_that_the_generator_fixes():
    draw = lambda seed: torch.cat(batches(np.arange(100), 30, torch.Generator().manual_seed(seed))).tolist()
    assert draw(0) != list(range(100)) and sorted(draw(0)) == list(range(100))
    assert draw(0) == draw(0) != draw(1)


def test_images_are_floats_in_0_to_1_with_one_channel(small_faces):
    x = Images(small_faces, torch.device("cpu"))(torch.tensor([3, 0, 3]))
    assert x.shape == (3, 1, 16, 16) and x.dtype == torch.float32
    assert np.array_equal(x[:, 0].numpy(), small_faces.images[[3, 0, 3]].astype(np.float32) / 255)


def test_an_empty_batch_of_images_has_no_faces(small_faces):
    x = Images(small_faces, torch.device("cpu"))(torch.tensor([], dtype=torch.int64), torch.Generator(), True, 2)
    assert x.shape == (0, 1, 16, 16)


def test_memory_mapped_faces_give_the_same_batches_as_faces_in_memory(small_faces, tmp_path):
    mapped = memory_mapped(small_faces, tmp_path / "images.npy")
    rows, cpu = torch.tensor([60, 2, 33]), torch.device("cpu")
    batch = lambda faces: Images(faces, cpu)(rows, torch.Generator().manual_seed(1), flip=True, shift=2)
    assert isinstance(mapped.images, np.memmap) and torch.equal(batch(mapped), batch(small_faces))


def moved(face, down, across, flip):
    """A face (H, W) moved by whole pixels with its border repeated, then mirrored: pixel by pixel."""
    size = len(face)
    out = np.empty_like(face)
    for y in range(size):
        for x in range(size):
            out[y, x] = face[min(max(y + down, 0), size - 1), min(max(x + across, 0), size - 1)]
    return out[:, ::-1] if flip else out


def test_augmented_faces_are_moved_and_mirrored_ones_and_every_move_occurs(small_faces):
    rows = torch.zeros(300, dtype=torch.int64)                  # one face, 300 draws
    images = Images(small_faces, torch.device("cpu"))
    x = (images(rows, torch.Generator().manual_seed(0), flip=True, shift=1)[:, 0] * 255).round().numpy()
    moves = {(down, across, flip): moved(small_faces.images[0], down, across, flip)
             for down in (-1, 0, 1) for across in (-1, 0, 1) for flip in (False, True)}
    counts = {move: sum(np.array_equal(face, target) for face in x) for move, target in moves.items()}
    assert sum(counts.values()) == 300 and min(counts.values()) >= 5       # 300 / 18 = 17 expected of each


def test_augmentation_that_is_switched_off_changes_nothing(small_faces):
    images, rows = Images(small_faces, torch.device("cpu")), torch.arange(70)
    assert torch.equal(images(rows, torch.Generator()), images(rows))
    assert torch.equal(images(rows, None, flip=True, shift=3), images(rows))


def test_a_part_of_augmented_faces_is_that_of_all(small_faces):
    images, rows = Images(small_faces, torch.device("cpu")), torch.arange(20)
    whole, part = (images(rows, torch.Generator().manual_seed(0), True, 3, 10., .1, part=part)
                   for part in (slice(None), slice(3, 8)))
    assert torch.equal(part, whole[3:8]) and torch.equal(images(rows, part=slice(3, 8)), images(rows[3:8]))


def test_turned_and_stretched_faces_are_those_of_scipy(small_faces):
    images, rows = Images(small_faces, torch.device("cpu")), torch.arange(5)
    x = images(rows, torch.Generator().manual_seed(3), turn=30., zoom=.2)[:, 0].numpy()
    generator = torch.Generator().manual_seed(3)
    angle, across, down = (most * (2 * torch.rand(5, generator=generator).numpy() - 1)
                           for most in (np.pi / 6, .2, .2))
    centre, line = 7.5, np.arange(16) - 7.5                     # of 16 pixels
    for face in range(5):
        v, u = np.meshgrid(line * (1 + down[face]), line * (1 + across[face]), indexing="ij")
        cos, sin = np.cos(angle[face]), np.sin(angle[face])
        places = np.array([u * sin + v * cos, u * cos - v * sin]) + centre
        expected = map_coordinates(small_faces.images[face] / 255, places, order=1, mode="nearest")
        assert x[face] == pytest.approx(expected, abs=1e-4)
    assert np.abs(angle).max() > .1


def test_faces_are_copied_to_a_device_once(small_faces):
    assert Images(small_faces, torch.device("cpu")).images is Images(small_faces, torch.device("cpu")).images


def test_a_warp_draws_the_same_for_a_part_of_the_faces():
    x = torch.rand(6, 1, 16, 16)
    draw = lambda part: warp(x[part], 6, torch.Generator().manual_seed(3), 12, .1, 2, part)
    assert torch.equal(draw(slice(None))[2:5], draw(slice(2, 5)))


def test_a_move_by_whole_pixels_is_that_of_the_pixels_and_repeats_the_border(monkeypatch):
    x = torch.rand(2, 1, 16, 16)
    draws = iter([torch.full((2,), .5)] * 3 + [torch.ones(2), torch.full((2,), .75)])     # none, 3 right, 1.5 down
    monkeypatch.setattr(torch, "rand", lambda *shape, **more: next(draws))
    moved = warp(x, 2, None, move=3.)
    halves = (x[..., 1:, :] + x[..., :-1, :]) / 2
    assert torch.allclose(moved[..., :-2, :-3], halves[..., 1:, 3:], atol=1e-5)
    assert torch.allclose(moved[..., -3:], moved[..., -4:-3].expand(-1, -1, -1, 3), atol=1e-5)
