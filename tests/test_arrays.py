"""Arrays of a user's own, whole and damaged."""
import numpy as np
import pytest

from data import arrays
from data.pixels import squares
from layouts import loaded, save_arrays


def test_an_npz_and_a_folder_of_npy_give_the_same_faces(content, tmp_path):
    np.savez(tmp_path / "mine.npz", **content)
    save_arrays(tmp_path, **content)
    paths = (tmp_path / "mine.npz", tmp_path, tmp_path / "images.npy")
    assert all(arrays.found(path) for path in paths)
    faces = [loaded(arrays, path, 16) for path in paths]
    assert len({f.fingerprint for f in faces}) == 1 and np.array_equal(faces[0].images, content["images"])
    assert faces[0].split.tolist() == [0] * 56 + [1] * 7 + [2] * 7
    assert [f.name for f in faces] == ["mine", tmp_path.name, tmp_path.name]


def test_images_npy_stays_memory_mapped_if_its_size_fits(content, tmp_path):
    save_arrays(tmp_path, **content)
    assert isinstance(loaded(arrays, tmp_path, 16).images, np.memmap)
    assert np.array_equal(loaded(arrays, tmp_path, 8).images, squares(content["images"], 8, "here"))


def test_fortran_ordered_images_are_not_transposed(content, tmp_path):
    save_arrays(tmp_path, **{**content, "images": np.asfortranarray(content["images"])})
    assert np.array_equal(loaded(arrays, tmp_path, 16).images, content["images"])


def test_arrays_without_identities_and_split_get_a_drawn_split(content, tmp_path):
    np.savez(tmp_path / "mine.npz", images=content["images"], labels=content["labels"])
    faces = loaded(arrays, tmp_path / "mine.npz", 16)
    assert np.bincount(faces.split).tolist() == [56, 7, 7] and (faces.identities == -1).all()


def test_arrays_with_one_identity_for_all_cannot_be_split(content, tmp_path, user_error):
    np.savez(tmp_path / "mine.npz", images=content["images"], labels=content["labels"], identities=np.full(70, 5))
    user_error(lambda: loaded(arrays, tmp_path / "mine.npz", 16), "mine.npz", "1 identities", "split of your own")


@pytest.mark.parametrize("missing", ["labels", "images"])
def test_images_and_labels_are_both_needed(missing, content, tmp_path, user_error):
    del content[missing]
    np.savez(tmp_path / "mine.npz", **content)
    user_error(lambda: loaded(arrays, tmp_path / "mine.npz", 16), tmp_path / "mine.npz", f"no {missing}",
               "-1 for an unlabelled one")


def test_arrays_of_other_names_are_named(content, tmp_path, capsys):
    np.savez(tmp_path / "mine.npz", **content, splits=content["split"])
    loaded(arrays, tmp_path / "mine.npz", 16)
    assert "not read: splits" in capsys.readouterr().out


def test_a_folder_without_labels_npy_is_refused(content, tmp_path, user_error):
    save_arrays(tmp_path, images=content["images"])
    user_error(lambda: loaded(arrays, tmp_path, 16), tmp_path, "no labels")


def test_black_faces_are_refused_so_that_rows_stay_those_of_a_metric(content, tmp_path, user_error):
    content["images"][12] = 0
    user_error(lambda: loaded(arrays, save_arrays(tmp_path, **content), 16), tmp_path, "rows 12")


@pytest.mark.parametrize("name", ["images", "labels", "identities", "split"])
def test_pickled_objects_are_refused(name, content, tmp_path, user_error):
    content[name] = content[name].astype(object)
    np.savez(tmp_path / "mine.npz", **content)
    user_error(lambda: loaded(arrays, tmp_path / "mine.npz", 16), tmp_path / "mine.npz", "ValueError", "object arrays")
    save_arrays(tmp_path, **content)
    user_error(lambda: loaded(arrays, tmp_path, 16), tmp_path / f"{name}.npy", "ValueError", "object arrays")


@pytest.mark.parametrize("kept", [0, 3, 100, 5000])
def test_truncated_arrays_are_refused(kept, content, tmp_path, user_error):
    np.savez_compressed(tmp_path / "mine.npz", **content)
    save_arrays(tmp_path, **content)
    for name in ("mine.npz", "images.npy"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:kept])
        user_error(lambda: loaded(arrays, tmp_path / name, 16), tmp_path / name, "cut off")


def test_an_npz_with_a_flipped_byte_is_refused(content, tmp_path, user_error):
    np.savez(tmp_path / "mine.npz", **content)
    whole = bytearray((tmp_path / "mine.npz").read_bytes())
    whole[9000] ^= 1                                            # inside images
    (tmp_path / "mine.npz").write_bytes(whole)
    user_error(lambda: loaded(arrays, tmp_path / "mine.npz", 16), "mine.npz", "CRC")


@pytest.mark.parametrize("name, change, found", [
    ("images", lambda a: a * 2., "float64 from"), ("images", lambda a: np.where(a > 200, np.nan, a), "NaN"),
    ("images", lambda a: a[..., None].repeat(2, 3), "(70, 16, 16, 2)"), ("images", lambda a: a - 500., "from -"),
    ("images", lambda a: a[:1, :1, 0], "(1, 1)"), ("labels", lambda a: a - 3, "-3 in row 0"),
    ("labels", lambda a: a[1:], "(69,)"), ("identities", lambda a: a - 3, "-3 in row 0"),
    ("identities", lambda a: a.astype(np.uint64) + 2 ** 63, "9223372036854775808 in row 0"),
    ("split", lambda a: np.char.upper(a), "TEST")])
def test_misshapen_arrays_are_refused(name, change, found, content, tmp_path, user_error):
    content[name] = change(content[name])
    np.savez(tmp_path / "mine.npz", **content)
    user_error(lambda: loaded(arrays, tmp_path / "mine.npz", 16), tmp_path / "mine.npz", found)


def test_the_names_of_classes_are_taken_from_an_array(content, tmp_path):
    np.savez(tmp_path / "mine.npz", **content, classes=["a", "b", "c", "d", "e", "f", "g"])
    faces = loaded(arrays, tmp_path / "mine.npz", 16)
    assert faces.classes == tuple("abcdefg") and np.array_equal(faces.labels, content["labels"])
    assert faces.about()["classes"] == list("abcdefg")


def test_numbers_of_labels_are_named_by_class_names(content, tmp_path, user_error):
    content["labels"] = content["labels"] + 1
    content["labels"][:7] = -1
    path = tmp_path / "mine.npz"
    np.savez(path, **content)
    faces = loaded(arrays, path, 16, CLASS_NAMES="RAF-DB")      # 1 surprise, 2 fear, ...
    named = [faces.classes[label] for label in faces.labels[7:14]]
    assert named == ["surprise", "fear", "disgust", "happy", "sad", "anger", "neutral"]
    assert (faces.labels[:7] == -1).all()
    user_error(lambda: loaded(arrays, path, 16, CLASS_NAMES="a,b"), path, "0 a, 1 b", "2, 3, 4")
    np.savez(path, **content | dict(labels=content["labels"].astype(str)))
    user_error(lambda: loaded(arrays, path, 16, CLASS_NAMES="RAF-DB"), path, "whole numbers")
