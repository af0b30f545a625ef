"""The classifier C: its last layer defines the distance between two faces, d_D(x1, x2) = ||C(x1) - C(x2)||.

In: faces (B, C, H, W) in 0..1. Out: the last layer (B, classes), one value per class before the softmax.
"""
from functools import partial

import torch
from torch import nn

from data.batches import contrast_normalization
from training.devices import GroupNorm
from training.plugins import choose, tried

LAYERS = ("last", "second_last", "softmax")


class Classifier(nn.Module):
    """Convolutions, then dense layers.

    blocks: modules run one after the other, whose outputs are the intermediate layers; dense: from the flattened
    last block to the second-last layer; width: that layer's width; classes: the last one's.
    """

    def __init__(self, blocks, dense, width, classes):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.dense = dense
        self.last = nn.Linear(width, classes)

    def features(self, x):
        """The outputs of all layers: one (B, C, h, w) a block, then second_last (B, width) and last (B, classes)."""
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        second_last = self.dense(x.flatten(1))
        return [*outputs, second_last, self.last(second_last)]

    def forward(self, x):
        return self.features(x)[-1]

    def layers(self, x):
        """The layers that figures and embeddings use, by name: last, second_last (B, width), softmax."""
        *_, second_last, last = self.features(x)
        return dict(last=last, second_last=second_last, softmax=last.softmax(1))


def original(size, classes, channels=1):
    """The reference implementation's: 5x5 convolutions, some pooled, then batch norm and ReLU; 1024 and 1024 dense."""
    def convolution(inputs, outputs, pool):
        return nn.Sequential(nn.Conv2d(inputs, outputs, 5, padding=2), nn.MaxPool2d(2) if pool else nn.Identity(),
                             nn.BatchNorm2d(outputs), nn.ReLU())

    def dense(inputs, outputs):
        return nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU())

    blocks = [convolution(channels, 64, True), convolution(64, 128, True), convolution(128, 192, False),
              convolution(192, 192, False), convolution(192, 64, True)]
    return Classifier(blocks, nn.Sequential(dense(64 * (size // 8) ** 2, 1024), dense(1024, 1024)), 1024, classes)


def light(size, classes, channels=1):
    """4x4 stride-2 convolutions of 32, 64 and 128 channels, then 128 dense.

    No batch norm and no dropout, so that a face's output never depends on its batch.
    """
    def convolution(inputs, outputs):
        return nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)

    blocks = [nn.Sequential(contrast_normalization(channels), convolution(channels, 32), nn.SiLU()),
              nn.Sequential(convolution(32, 64), GroupNorm(8, 64), nn.SiLU()),
              nn.Sequential(convolution(64, 128), GroupNorm(8, 128), nn.SiLU())]
    dense = nn.Sequential(nn.Linear(128 * (size // 8) ** 2, 128), nn.LayerNorm(128), nn.SiLU())
    return Classifier(blocks, dense, 128, classes)


class Residual(nn.Module):
    """x + layers(x), both of one shape (He et al. 2016)."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, x):
        return x + self.layers(x)


def residual(size, classes, channels=1):
    """As light, but of 3x3 convolutions, a residual one after each of stride 2: better than light in long trainings on
    many faces, no better in short ones.
    """
    def convolution(inputs, outputs, stride=1):
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), GroupNorm(8, outputs),
                             nn.SiLU())

    def block(inputs, outputs):
        return nn.Sequential(convolution(inputs, outputs, 2), Residual(convolution(outputs, outputs)))

    blocks = [nn.Sequential(contrast_normalization(channels), nn.Conv2d(channels, 32, 3, stride=2, padding=1),
                            nn.SiLU()),
              block(32, 64), block(64, 128)]
    dense = nn.Sequential(nn.Linear(128 * (size // 8) ** 2, 128), nn.LayerNorm(128), nn.SiLU())
    return Classifier(blocks, dense, 128, classes)


def judge(size, classes, channels=1):
    """Four 3x3 convolutions with batch norm: unlike the others, so that it can judge what was trained with them."""
    def convolution(inputs, outputs, stride):
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.BatchNorm2d(outputs),
                             nn.ReLU())

    blocks = [convolution(channels, 24, 2), convolution(24, 48, 2), convolution(48, 96, 2), convolution(96, 96, 1)]
    dense = nn.Sequential(nn.Dropout(0.4), nn.Linear(96 * (size // 8) ** 2, 96), nn.ReLU())
    return Classifier(blocks, dense, 96, classes)


ARCHITECTURES = {"light": light, "residual": residual, "original": original, "judge": judge}


def find_architecture(name):
    """The function of (size, classes, channels) to a Classifier: of a name in ARCHITECTURES, or "my_file.py:function".

    Raises UserError for an unknown name.
    """
    return choose(name, ARCHITECTURES, "ARCHITECTURE", "a function of (size, classes, channels) to a Classifier")


def build_classifier(architecture, size, classes, channels):
    """The Classifier, untrained, of an ARCHITECTURE."""
    return find_architecture(architecture)(size, classes, channels)


def tried_classifier(architecture, size, classes, channels):
    """As build_classifier, but a network of the user's own is tried. Raises UserError where it fails, or has other
    outputs than a Classifier of this size.
    """
    build = partial(build_classifier, architecture, size, classes, channels)
    outputs = lambda model: dict(last=model.layers(torch.zeros(4, channels, size, size))["last"])
    return tried(architecture, build, Classifier, outputs, dict(last=(4, classes)),
                 "return Classifier([network], nn.Identity(), width, classes): network(x) is (B, width)")
