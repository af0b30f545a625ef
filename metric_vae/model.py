"""The VAE: q(z|x) = N(mu, sigma^2) and a decoder, for faces (B, C, H, W) in 0..1 with H a multiple of 8, C = 1 or 3."""
from functools import partial

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from data.batches import contrast_normalization
from training.devices import GroupNorm
from training.plugins import choose, tried

SIGMA_MIN = 1e-5        # the reference's clip
SPREAD = 0.25           # standard deviation of a pixel over faces, about


class VAE(nn.Module):
    """An encoder to (mu, sigma), each (B, z_dim), and a decoder to faces (B, C, H, W); no output activation.

    encoder: faces to a vector of 2 z_dim; decoder: z to faces, or to their differences from a MeanFace if there is one;
    metric_dims: how many of the first dimensions of z are the metric part, None: all of them.
    """

    def __init__(self, encoder, decoder, metric_dims=None, mean_face=None):
        super().__init__()
        self.encoder, self.decoder, self.metric_dims, self.mean_face = encoder, decoder, metric_dims, mean_face

    @property
    def has_branch(self):
        """Whether the metric part has a separate branch."""
        return isinstance(self.encoder, Branches)

    def encode(self, x):
        """mu and sigma of q(z|x), float32 (B, z_dim) each; sigma = softplus, at least SIGMA_MIN."""
        return gaussian(self.encoder(x))

    @property
    def _metric_encoder(self):
        """The network that gives the metric part: its branch, or all of the encoder."""
        return self.encoder.metric if self.has_branch else self.encoder

    def encode_metric(self, x):
        """mu and sigma of the metric part, float32 (B, k) each, by its branch alone if there is one."""
        mu, sigma = gaussian(self._metric_encoder(x))
        return mu[:, :self.metric_dims], sigma[:, :self.metric_dims]

    def decode(self, z):
        """The mean of p(x|z), float32 (B, C, H, W)."""
        return self._face(self.decoder(z))

    def recover_metric(self, x):
        """The metric part of mu, float32 (B, k), with the encoder's weights held fixed: gradients reach only x."""
        mu, _ = gaussian(fixed(self._metric_encoder, x))
        return mu[:, :self.metric_dims]

    @property
    def has_entry(self):
        """Whether the weights by which the metric part enters the decoder are known: those of its first layer."""
        return type(self.decoder) is nn.Sequential and type(self.decoder[0]) in (Joined, nn.Linear)

    def decode_edited(self, z):
        """As decode, but gradients reach only z and, in a decoder that begins with Joined or a linear layer, the
        weights by which the metric part enters it.
        """
        first = self.decoder[0] if self.has_entry else None
        if type(first) is not nn.Linear:
            return self._face(fixed(self.decoder, z, free="0.metric." if type(first) is Joined else ()))
        of_part, of_rest = first.weight.tensor_split([self.metric_dims or z.shape[1]], 1)
        bias = None if first.bias is None else first.bias.detach()
        joined = functional.linear(z, torch.cat([of_part, of_rest.detach()], 1), bias)
        return self._face(fixed(self.decoder[1:], joined))

    def parameter_groups(self):
        """The parameters of the metric branch, if there is one, and the others, as lists: the regulariser's gradients
        are many times as large as the others.
        """
        branch = list(self.encoder.metric.parameters()) if self.has_branch else []
        of_branch = set(map(id, branch))
        return [branch, [parameter for parameter in self.parameters() if id(parameter) not in of_branch]]

    def _face(self, x_hat):
        return x_hat.float() if self.mean_face is None else x_hat.float() + self.mean_face.face


def fixed(network, x, free=()):
    """network(x) with its weights held fixed, except those whose names start with free; what batch norm keeps does not
    change either.
    """
    weights = {name: parameter.detach() for name, parameter in network.named_parameters()
               if not name.startswith(free)}
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    return functional_call(network, weights | buffers, x)


def gaussian(outputs):
    """mu and sigma, float32 (B, Z) each, from the outputs (B, 2 Z) of an encoder: sigma = softplus, at least SIGMA_MIN.
    """
    mu, sigma = outputs.float().chunk(2, dim=1)
    return mu, functional.softplus(sigma).clamp(min=SIGMA_MIN)


def original(size, z_dim, metric_dims=None, channels=1):
    """The reference implementation's: 5x5 convolutions 64, 128, 256, each pooled, batch norm; the decoder mirrored.

    One encoder for all of z, whatever metric_dims.
    """
    def down(inputs, outputs):
        return [nn.Conv2d(inputs, outputs, 5, padding=2), nn.MaxPool2d(2), nn.BatchNorm2d(outputs), nn.ReLU()]

    def up(inputs, outputs):
        return [nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1),
                nn.BatchNorm2d(outputs), nn.ReLU()]

    side = size // 8
    encoder = nn.Sequential(*down(channels, 64), *down(64, 128), *down(128, 256), nn.Flatten(),
                            nn.Linear(256 * side ** 2, 2 * z_dim))
    decoder = nn.Sequential(nn.Linear(z_dim, 256 * side ** 2), nn.BatchNorm1d(256 * side ** 2), nn.ReLU(),
                            nn.Unflatten(1, (256, side, side)), *up(256, 256), *up(256, 128), *up(128, 32),
                            nn.Conv2d(32, channels, 5, padding=2))
    return VAE(encoder, decoder, metric_dims)


class MeanFace(nn.Module):
    """Subtracts the mean face (1, C, size, size), which the training loop sets, and divides by SPREAD."""

    def __init__(self, size, channels=1):
        super().__init__()
        self.register_buffer("face", torch.zeros(1, channels, size, size))

    def forward(self, x):
        return (x - self.face) / SPREAD


class Branches(nn.Module):
    """An encoder with two branches: one gives the first dimensions of mu and sigma, the other the rest. The second also
    gets the mu of the first.

    It enters the rest's mu linearly, so that the rest can leave out what the metric part says, and does not contradict
    it after an edit. Its weights start at 0, and the gradient of the rest does not reach the metric branch.
    """

    def __init__(self, metric, rest, metric_dims, rest_dims):
        super().__init__()
        self.metric, self.rest = metric, rest
        self.told = nn.Linear(metric_dims, rest_dims, bias=False)
        nn.init.zeros_(self.told.weight)

    def forward(self, x):
        mu, sigma = self.metric(x).chunk(2, 1)
        mu_rest, sigma_rest = self.rest(x).chunk(2, 1)
        return torch.cat([mu, mu_rest + self.told(mu.detach()), sigma, sigma_rest], 1)


class Joined(nn.Module):
    """The first layer of a decoder, from z to (B, outputs): the metric part of z passes a small network, the rest a
    linear layer, and the outputs of both are added.

    The metric part is arranged by the given distances, not for the decoder, so the decoder has to read it nonlinearly.
    The small network starts with outputs of 0: the decoder first learns from the rest of z, which makes reconstructions
    better.
    """

    def __init__(self, metric_dims, rest_dims, outputs, width=16):
        super().__init__()
        self.metric_dims = metric_dims
        self.metric = nn.Sequential(nn.Linear(metric_dims, width), nn.SiLU(), nn.Linear(width, outputs, bias=False))
        self.rest = nn.Linear(rest_dims, outputs)
        nn.init.zeros_(self.metric[-1].weight)

    def forward(self, z):
        return self.metric(z[:, :self.metric_dims]) + self.rest(z[:, self.metric_dims:])


class Blur(nn.Module):
    """A 3x3 binomial blur. Without it the decoder learns to write a checkerboard that stride-2 convolutions read."""

    def __init__(self, channels=1):
        super().__init__()
        line = torch.tensor([1., 2, 1]) / 4
        self.register_buffer("kernel", line.outer(line).repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x):
        return functional.conv2d(functional.pad(x, (1, 1, 1, 1), "replicate"), self.kernel, groups=len(self.kernel))


class WithLight(nn.Module):
    """Faces (B, C, H, W) of normalised contrast, and as two more channels the mean and the standard deviation that they
    had, about -2 to 2 each: (B, C + 2, H, W).
    """

    def __init__(self, channels=1):
        super().__init__()
        self.normalize = contrast_normalization(channels)

    def forward(self, x):
        mean, variance = x.mean((1, 2, 3), keepdim=True), x.var((1, 2, 3), keepdim=True)
        light = torch.cat([4 * (mean - 0.5), 10 * ((variance + 1e-6).sqrt() - 0.2)], 1)
        return torch.cat([self.normalize(x), light.expand(-1, -1, *x.shape[2:])], 1)


def light(size, z_dim, metric_dims=None, channels=1, sees_light=False):
    """Three 4x4 stride-2 convolutions of 32, 64 and 128 channels and their mirror image.

    The decoder adds the mean face: otherwise the means of mu would have to make it, far from the prior. The first
    metric_dims of z come from a separate branch, built like a small classifier: otherwise the regulariser's gradients
    slow down what the encoder learns of the rest of the face. Without batch norm a face's mu does not depend on its
    batch. SiLU (Elfwing, Uchibe and Doya 2018) is smooth: at ReLU's kink the least rounding changes a gradient, and two
    processes soon have other losses than one. Weights start from torch's own initialisation, smaller than He's (2015).
    sees_light: whether that branch also sees how bright and how rich in contrast a face is.
    """
    part = metric_dims or 0
    mean_face = MeanFace(size, channels)
    encoder = nn.Sequential(mean_face, *light_encoder(size, 2 * (z_dim - part), channels))
    if part:
        features = 128 * (size // 8) ** 2
        convolution = lambda inputs, outputs: nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
        normalize = WithLight(channels) if sees_light else contrast_normalization(channels)
        inputs = channels + 2 if sees_light else channels
        metric = nn.Sequential(normalize, Blur(inputs), convolution(inputs, 32), nn.SiLU(),
                               convolution(32, 64), GroupNorm(8, 64), nn.SiLU(),
                               convolution(64, 128), GroupNorm(8, 128), nn.SiLU(), nn.Flatten(),
                               nn.Linear(features, 128), nn.LayerNorm(128), nn.SiLU(), nn.Linear(128, 2 * part))
        encoder = Branches(metric, encoder, part, z_dim - part)
    return VAE(encoder, light_decoder(size, z_dim, channels, part), metric_dims, mean_face)


def light_encoder(size, outputs, channels=1):
    """The encoder of light, from (B, channels, size, size) to (B, outputs)."""
    def down(inputs, outputs):
        return [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.SiLU()]

    return nn.Sequential(*down(channels, 32), *down(32, 64), *down(64, 128), nn.Flatten(),
                         nn.Linear(128 * (size // 8) ** 2, outputs))


def light_decoder(size, inputs, channels=1, metric_dims=0):
    """The decoder of light, from (B, inputs) to (B, channels, size, size); the first metric_dims inputs are Joined."""
    def up(inputs, outputs):
        return [nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.SiLU()]

    features = 128 * (size // 8) ** 2
    first = Joined(metric_dims, inputs - metric_dims, features) if metric_dims else nn.Linear(inputs, features)
    return nn.Sequential(first, nn.SiLU(),
                         nn.Unflatten(1, (128, size // 8, size // 8)),
                         *up(128, 64), *up(64, 32), nn.ConvTranspose2d(32, channels, 4, stride=2, padding=1))


ARCHITECTURES = {"light": light, "original": original}


def find_architecture(name):
    """The function of (size, z_dim, metric_dims, channels) to a VAE: of a name in ARCHITECTURES, or
    "my_file.py:function".

    Raises UserError for an unknown name.
    """
    return choose(name, ARCHITECTURES, "ARCHITECTURE", "a function of (size, z_dim, metric_dims, channels) to a VAE")


def build_vae(architecture, size, z_dim, metric_dims, channels, sees_light=False):
    """The VAE, untrained, of an ARCHITECTURE; sees_light: see light, which alone has it."""
    more = {"sees_light": True} if sees_light else {}
    return find_architecture(architecture)(size, z_dim, metric_dims, channels, **more)


def tried_vae(architecture, size, z_dim, metric_dims, channels, sees_light=False):
    """As build_vae, but a VAE of the user's own is tried. Raises UserError where it fails, or has other outputs than a
    VAE of this size.
    """
    build = partial(build_vae, architecture, size, z_dim, metric_dims, channels, sees_light)
    latents, faces = (4, z_dim), (4, channels, size, size)

    def outputs(vae):
        if (type(vae).encode, type(vae).decode) != (VAE.encode, VAE.decode):
            raise TypeError("a VAE with its own encode or decode: make these its encoder and decoder")
        mu, sigma = vae.encode(torch.zeros(faces))
        x_hat = vae.decode_edited(torch.zeros(latents))
        return dict(mu=mu, sigma=sigma, metric_part=vae.recover_metric(torch.zeros(faces)), x_hat=x_hat)
    part = (4, metric_dims or z_dim)
    return tried(architecture, build, VAE, outputs, dict(mu=latents, sigma=latents, metric_part=part, x_hat=faces),
                 "return VAE(encoder, decoder, metric_dims): encoder(x) is (B, 2 Z_DIM), mu and what softplus makes "
                 "sigma of; decoder(z) is x_hat")


def squared_error(x_hat, x):
    """Squared error summed over pixels, (B,); both (B, C, H, W)."""
    return (x_hat - x).square().sum((1, 2, 3))


def kl_divergence(mu, sigma):
    """KL(N(mu, sigma^2) || N(0, 1)) summed over dimensions, (B,); both (B, z_dim).

    Kingma and Welling 2014, appendix B.
    """
    return (mu.square() + sigma.square() - 1 - 2 * sigma.log()).sum(1) / 2
