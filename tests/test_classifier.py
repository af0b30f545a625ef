"""expr_classifier: the networks, the losses, training and embeddings."""
from dataclasses import replace

import numpy as np
import pytest
import torch

import expr_classifier.run
import run
from conftest import draw_small_images
from data.faces import checked
from expr_classifier import train as classifier
from expr_classifier.model import ARCHITECTURES
from training import checkpoints
from training.settings import default_settings

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = replace(default_settings(expr_classifier.run), STEPS=12, BATCH=16)


@pytest.fixture
def trained(small_faces, tmp_path):
    """The light classifier after a few epochs on the small faces, and its run folder."""
    return classifier.train(small_faces, replace(SMALL, STEPS=60), tmp_path, 0, CPU, "fp32"), tmp_path


@pytest.mark.parametrize("size", [16, 48])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_has_seven_outputs_and_named_layers(name, size):
    model = ARCHITECTURES[name](size, 7).eval()
    x = torch.rand(3, 1, size, size)
    layers = model.layers(x)
    assert layers["last"].shape == (3, 7) and layers["second_last"].ndim == 2
    assert torch.equal(layers["softmax"], layers["last"].softmax(1))
    assert torch.equal(model.features(x)[-1], model(x))


def test_the_original_has_the_layers_of_the_reference():
    kernels = [tuple(m.weight.shape) for m in ARCHITECTURES["original"](48, 7).modules()
               if hasattr(m, "weight") and m.weight.ndim > 1]
    assert kernels == [(64, 1, 5, 5), (128, 64, 5, 5), (192, 128, 5, 5), (192, 192, 5, 5), (64, 192, 5, 5),
                       (1024, 64 * 36), (1024, 1024), (7, 1024)]
    order = [[type(m).__name__ for m in block if not isinstance(m, torch.nn.Identity)]
             for block in ARCHITECTURES["original"](48, 7).blocks]
    plain, pooled = ["Conv2d", "BatchNorm2d", "ReLU"], ["Conv2d", "MaxPool2d", "BatchNorm2d", "ReLU"]
    assert order == [pooled, pooled, plain, plain, pooled]


@pytest.mark.parametrize("loss, expected", [("cross_entropy", np.log(7)),
                                            ("squared_error", ((6 / 7) ** 2 + 6 / 49) / 2)])
def test_each_loss_of_equal_outputs_is_known_by_hand(loss, expected):
    value = classifier.loss_function(torch.zeros(4, 7), torch.tensor([0, 1, 2, 3]), torch.ones(7), loss)
    assert value.tolist() == pytest.approx([expected] * 4, rel=1e-5)


def test_smoothed_labels_give_each_other_expression_its_share():
    outputs = torch.randn(1, 7)
    expected = -(outputs.log_softmax(1)[0] * torch.tensor([.1, .1, .4, .1, .1, .1, .1])).sum()
    loss = classifier.loss_function(outputs, torch.tensor([2]), torch.ones(7), smoothing=.7)
    assert float(loss) == pytest.approx(float(expected))


def test_a_loss_weighs_faces_by_their_expression():
    outputs, labels = torch.randn(4, 7), torch.tensor([0, 1, 1, 6])
    weights = torch.tensor([2.0, 0, 0, 0, 0, 0, 1])
    one = lambda i: float(torch.nn.functional.cross_entropy(outputs[i:i + 1], labels[i:i + 1]))
    value = classifier.loss_function(outputs, labels, weights)
    assert value.tolist() == pytest.approx([2 * one(0), 0, 0, one(3)], rel=1e-5)


def test_it_learns_people_it_has_not_seen(trained, small_faces):
    model, _ = trained
    assert classifier.measure_accuracy(model, small_faces, small_faces.rows("test"), CPU) >= 6 / 7


def test_embeddings_are_the_last_layer_of_every_face_in_order(trained, small_faces):
    model, folder = trained
    small_faces.labels[3] = -1
    classifier.write_embeddings(model, small_faces, "last", folder, CPU)
    embeddings = np.load(folder / "embeddings.npy", allow_pickle=False)
    assert embeddings.shape == (70, 7) and embeddings.dtype == np.float32
    x = torch.from_numpy(small_faces.images[[3, 50]]).unsqueeze(1) / 255
    assert np.allclose(embeddings[[3, 50]], model(x), atol=1e-5)


def test_a_part_of_no_faces_has_no_layers(trained, small_faces):
    """As a process has that gets none of a small batch."""
    layer = classifier.layer_of(trained[0], small_faces, np.array([], int), CPU)
    assert layer.shape == (0, 7) and layer.dtype == np.float32


@pytest.mark.parametrize("layer, width", [("last", 7), ("second_last", 128), ("softmax", 7)])
def test_the_metric_ends_in_the_chosen_layer(trained, small_faces, layer, width):
    model, folder = trained
    x = torch.rand(2, 1, 16, 16)
    points = run.metric_of(model, layer).points(x)
    assert torch.equal(points, model.layers(x)[layer]) and points.shape == (2, width)
    assert classifier.write_embeddings(model, small_faces, layer, folder, CPU).shape == (70, width)


def test_a_saved_classifier_comes_back(trained, small_faces):
    model, folder = trained
    again = classifier.load_classifier(folder / "classifier.pt", CPU)
    x = torch.rand(2, 1, 16, 16)
    assert torch.equal(again(x), model(x)) and not again.training


def test_training_resumed_after_an_epoch_ends_with_the_same_weights(small_faces, tmp_path, monkeypatch):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    whole = classifier.train(small_faces, SMALL, tmp_path / "a", 0, CPU, "fp32")
    save = checkpoints.save_checkpoint

    def stop(*arguments, **more):
        save(*arguments, **more)
        raise KeyboardInterrupt
    monkeypatch.setattr(checkpoints, "save_checkpoint", stop)
    with pytest.raises(KeyboardInterrupt):
        classifier.train(small_faces, SMALL, tmp_path / "b", 0, CPU, "fp32")
    monkeypatch.setattr(checkpoints, "save_checkpoint", save)
    again = classifier.train(small_faces, SMALL, tmp_path / "b", 0, CPU, "fp32")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters()))


def test_an_expression_without_training_faces_is_refused(small_faces, tmp_path, user_error):
    small_faces.labels[small_faces.labels == 3] = 4
    user_error(lambda: classifier.train(small_faces, SMALL, tmp_path, 0, CPU, "fp32"), "happy")


def test_a_last_batch_of_one_face_trains_the_judge_whose_last_block_is_a_pixel(tmp_path):
    images, labels = draw_small_images(8), np.arange(70) % 7
    split = np.repeat([0, 1, 2], [56, 7, 7])                                    # 5 training batches and a face
    faces = checked(images, labels, None, split, "small", "small faces", seed=0)
    settings = replace(SMALL, ARCHITECTURE="judge", BATCH=11, STEPS=1)
    classifier.train(faces, settings, tmp_path, 0, CPU, "fp32")
