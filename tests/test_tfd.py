"""TFD on small files in its public formats, whole and damaged."""
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.io import savemat

from data import sources, tfd
from data.pixels import squares


def test_tfd_is_read_row_by_column_in_c_order_with_labels_from_0(toronto, tmp_path):
    savemat(tmp_path / "TFD_ranzato_48x48.mat", toronto)
    faces = tfd.load(tmp_path, 48)
    assert np.array_equal(faces.images, toronto["images"]) and faces.images.flags.c_contiguous
    assert faces.labels.tolist() == [*np.arange(70) % 7] + [-1] * 14
    assert faces.identities.tolist() == [*np.arange(70) // 7] + [-1] * 14


def test_tfd_fields_may_be_rows_and_the_file_compressed(toronto, tmp_path):
    savemat(tmp_path / "a.mat", toronto)
    rows = {**toronto, "labs_ex": toronto["labs_ex"].T, "labs_id": toronto["labs_id"].T.astype(float)}
    savemat(tmp_path / "b.mat", rows, do_compression=True)
    assert tfd.load(tmp_path / "a.mat").fingerprint == tfd.load(tmp_path / "b.mat").fingerprint


@pytest.mark.parametrize("fold", range(5))
def test_a_tfd_fold_names_the_split_and_unlabelled_faces_train(fold, toronto, tmp_path):
    savemat(tmp_path / "TFD_ranzato_48x48.mat", toronto)
    faces = tfd.load(tmp_path, 48, fold)
    for person in range(10):
        place = (person + fold) % 10
        assert set(faces.split[faces.identities == person]) == {0 if place < 7 else 1 if place < 9 else 2}
    assert (faces.split[70:] == 0).all()


def test_an_unlabelled_tfd_face_of_a_person_held_out_is_held_out_too(toronto, tmp_path):
    toronto["labs_id"][70:73, 0] = 9, 7, 0                      # in fold 0: test, valid, train
    savemat(tmp_path / "TFD_ranzato_48x48.mat", toronto)
    assert tfd.load(tmp_path, 48, 0).split[70:75].tolist() == [2, 1, 0, 0, 0]


def test_tfd_without_folds_gets_a_drawn_split_that_shares_no_identity(toronto, tmp_path, capsys):
    del toronto["folds"]
    savemat(tmp_path / "TFD_48x48.mat", toronto)
    faces = tfd.load(tmp_path, 48, seed=3)
    people = [set(faces.identities[(faces.split == part) & (faces.identities >= 0)]) for part in range(3)]
    assert all(people) and not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])
    assert "no folds" in capsys.readouterr().out


def test_black_tfd_faces_are_left_out_with_a_count(toronto, tmp_path, capsys):
    toronto["images"][[72, 80]] = 0
    savemat(tmp_path / "TFD_ranzato_48x48.mat", toronto)
    faces = tfd.load(tmp_path, 48)
    assert len(faces) == 82 and "left out 2 of 84" in capsys.readouterr().out
    assert np.array_equal(faces.images[72], toronto["images"][73])


@pytest.mark.parametrize("present, size, chosen", [
    (("TFD_48x48.mat", "TFD_ranzato_48x48.mat", "TFD_ranzato_96x96.mat"), 48, "TFD_ranzato_48x48.mat"),
    (("TFD_48x48.mat", "TFD_ranzato_48x48.mat", "TFD_96x96.mat"), 96, "TFD_96x96.mat"),
    (("TFD_96x96.mat", "TFD_ranzato_48x48.mat"), 64, "TFD_ranzato_48x48.mat"),
    (("TFD_ranzato_96x96.mat", "TFD_ranzato_48x48.mat"), 64, "TFD_ranzato_96x96.mat"),
    (("TFD_ranzato_96x96.mat", "tfd_data_array.npz", "fau_levels.npz"), 48, "tfd_data_array.npz"),
    (("TFD_ranzato_96x96.mat", "tfd_data_array.npz", "fau_levels.npz"), 96, "TFD_ranzato_96x96.mat"),
    (("TFD_ranzato_96x96.mat", "tfd_data_array.npz"), 64, "TFD_ranzato_96x96.mat")])
@pytest.mark.parametrize("place", ["", "tfd"])
def test_of_several_tfd_files_the_one_that_fits_is_chosen(present, size, chosen, place, tmp_path):
    (tmp_path / place).mkdir(exist_ok=True)
    for name in present:
        (tmp_path / place / name).touch()
    assert tfd.found(tmp_path) and tfd._choose(tmp_path, size) == tmp_path / place / chosen


def test_the_tfd_file_taken_is_printed_and_resized(toronto, tmp_path, capsys):
    savemat(tmp_path / "TFD_ranzato_48x48.mat", toronto)
    faces = tfd.load(tmp_path, 24)
    assert np.array_equal(faces.images, squares(toronto["images"], 24, "here"))
    assert f"reading {tmp_path / 'TFD_ranzato_48x48.mat'}" in capsys.readouterr().out


@pytest.mark.parametrize("fold", [-1, 5, "1", None])
def test_a_fold_out_of_range_is_refused(fold, tmp_path, user_error):
    user_error(lambda: sources.load(tmp_path, 48, fold), "FOLD", "0 to 4", fold)


def test_a_v73_mat_file_is_refused_with_what_to_do(tmp_path, user_error):
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    (tmp_path / "TFD_48x48.mat").write_bytes(header.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n" + bytes(100))
    user_error(lambda: tfd.load(tmp_path), tmp_path / "TFD_48x48.mat", "version 7.3", "-v7", "h5py")


@pytest.mark.parametrize("kept", [0, 1, 100, 3000, -10])
def test_a_truncated_mat_file_is_refused(kept, toronto, tmp_path, user_error):
    path = tmp_path / "TFD_ranzato_48x48.mat"
    savemat(path, toronto)
    path.write_bytes(path.read_bytes()[:kept])
    user_error(lambda: tfd.load(tmp_path), path)


def test_a_mat_file_without_its_fields_is_refused(toronto, tmp_path, user_error):
    del toronto["labs_ex"]
    savemat(tmp_path / "TFD_48x48.mat", toronto)
    user_error(lambda: tfd.load(tmp_path), "TFD_48x48.mat", "labs_ex", "no labs_ex", "data/README.md")


@pytest.mark.parametrize("field, change, found", [
    ("images", lambda a: a.transpose(1, 2, 0), "48 images, 84 labels"),
    ("images", lambda a: a[:, :, :40], "(84, 48, 40)"),
    ("images", lambda a: a[:, 0], "(84, 48)"),
    ("images", lambda a: a / 255, "float64"),
    ("labs_ex", lambda a: a[:-1], "83 labels"),
    ("labs_ex", lambda a: np.where(a == 3, 0, a), "10 others, e.g. 0"),
    ("labs_ex", lambda a: np.where(a == 7, 8, a), "10 others, e.g. 8"),
    ("labs_ex", lambda a: np.where(a == 7, np.nan, a), "10 others, e.g. nan"),
    ("labs_id", lambda a: a[:-1], "83 identities"),
    ("labs_id", lambda a: a - 1, "-2 in row 70"),
    ("folds", lambda a: a[:, :4], "(84, 4)"),
    ("folds", lambda a: a[:-1], "(83, 5)"),
    ("folds", lambda a: a + 1, "4")])
def test_misshapen_tfd_fields_are_refused(field, change, found, toronto, tmp_path, user_error):
    toronto[field] = change(toronto[field])
    savemat(tmp_path / "TFD_ranzato_48x48.mat", toronto)
    user_error(lambda: tfd.load(tmp_path), "TFD_ranzato_48x48.mat", found)


def test_a_folder_without_tfd_is_refused_with_the_names_of_its_files(tmp_path, user_error):
    assert not tfd.found(tmp_path)
    user_error(lambda: tfd.load(tmp_path), tmp_path, "TFD_ranzato_48x48.mat", "none of them")


@pytest.fixture
def processed(toronto, tmp_path):
    """The three files of the reference implementation: 84 faces, of which 50 rows are used."""
    large = squares(toronto["images"], 64, "here")
    rows = np.sort(np.random.default_rng(0).permutation(84)[:50])
    np.savez_compressed(tmp_path / "tfd_data_array.npz", images=large)
    np.savez_compressed(tmp_path / "fau_levels.npz", inds=rows)
    savemat(tmp_path / "TFD_ranzato_96x96.mat", {**toronto, "images": np.zeros((84, 1, 1), np.uint8)})
    return SimpleNamespace(path=tmp_path, images=large, rows=rows, labels=np.where(rows < 70, rows % 7, -1))


def test_processed_tfd_rows_get_the_labels_of_the_same_rows(processed):
    faces = tfd.load(processed.path, 64)
    assert np.array_equal(faces.images, processed.images[processed.rows])
    assert np.array_equal(faces.labels, processed.labels)
    assert np.array_equal(faces.identities, np.where(processed.rows < 70, processed.rows // 7, -1))


def test_processed_tfd_is_split_by_position_train_test_val_and_says_so(processed, capsys):
    assert tfd.load(processed.path, 64).split.tolist() == [0] * 40 + [2] * 5 + [1] * 5
    assert "identities are shared" in capsys.readouterr().out


def test_processed_tfd_files_of_different_sets_are_refused(processed, user_error):
    np.savez(processed.path / "fau_levels.npz", inds=np.array([3, 84]))
    user_error(lambda: tfd.load(processed.path, 64), "fau_levels.npz", "0 to 83", "[3, 84]")
    np.savez(processed.path / "tfd_data_array.npz", images=processed.images[:-1])
    user_error(lambda: tfd.load(processed.path, 64), "TFD_ranzato_96x96.mat", "83 images, 84 labels")
    (processed.path / "tfd_data_array.npz").write_bytes(b"PK\3\4 cut off")
    user_error(lambda: tfd.load(processed.path, 64), "tfd_data_array.npz", "an .npz with images")
    np.savez(processed.path / "tfd_data_array.npz", faces=processed.images)
    user_error(lambda: tfd.load(processed.path, 64), "tfd_data_array.npz", "KeyError")
