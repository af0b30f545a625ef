"""The VAE: q(z|x) = N(mu, sigma^2) and a decoder, for faces (B, 1, H, W) in 0..1 with H a multiple of 8."""
import math

import torch
from torch import nn
from torch.nn import functional

SIGMA_MIN = 1e-5        # the reference's clip


class VAE(nn.Module):
    """An encoder to (mu, sigma), each (B, z_dim), and a decoder to faces (B, 1, H, W); no output activation.

    encoder: faces to a vector of 2 z_dim; decoder: z to faces.
    """

    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def encode(self, x):
        """mu and sigma of q(z|x), float32 (B, z_dim) each; sigma = softplus, at least SIGMA_MIN."""
        mu, sigma = self.encoder(x).float().chunk(2, dim=1)
        return mu, functional.softplus(sigma).clamp(min=SIGMA_MIN)

    def decode(self, z):
        """The mean of p(x|z), float32 (B, 1, H, W)."""
        return self.decoder(z).float()

    def forward(self, x):
        """The reconstruction of x from mu."""
        return self.decode(self.encode(x)[0])


def original(size, z_dim):
    """The reference implementation's: 5x5 convolutions 64, 128, 256, each pooled, batch norm; the decoder mirrored."""
    def down(inputs, outputs):
        return [nn.Conv2d(inputs, outputs, 5, padding=2), nn.MaxPool2d(2), nn.BatchNorm2d(outputs), nn.ReLU()]

    def up(inputs, outputs):
        return [nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1),
                nn.BatchNorm2d(outputs), nn.ReLU()]

    side = size // 8
    encoder = nn.Sequential(*down(1, 64), *down(64, 128), *down(128, 256), nn.Flatten(),
                            nn.Linear(256 * side ** 2, 2 * z_dim))
    decoder = nn.Sequential(nn.Linear(z_dim, 256 * side ** 2), nn.BatchNorm1d(256 * side ** 2), nn.ReLU(),
                            nn.Unflatten(1, (256, side, side)), *up(256, 256), *up(256, 128), *up(128, 32),
                            nn.Conv2d(32, 1, 5, padding=2))
    return VAE(encoder, decoder)


def light(size, z_dim):
    """Three 4x4 stride-2 convolutions of 32, 64 and 128 channels and their mirror image, without normalisation.

    Without batch norm a face's mu does not depend on its batch, nor a loss on how a batch is spread over processes.
    """
    def down(inputs, outputs):
        return [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU()]

    def up(inputs, outputs):
        return [nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU()]

    side = size // 8
    encoder = nn.Sequential(*down(1, 32), *down(32, 64), *down(64, 128), nn.Flatten(),
                            nn.Linear(128 * side ** 2, 2 * z_dim))
    decoder = nn.Sequential(nn.Linear(z_dim, 128 * side ** 2), nn.ReLU(), nn.Unflatten(1, (128, side, side)),
                            *up(128, 64), *up(64, 32), nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1))
    return initialise(VAE(encoder, decoder))


def initialise(vae):
    """He initialisation (He et al. 2015), the outputs of encoder and decoder 10 times smaller: a network without
    normalisation starts at once (4 epochs: validation error 11.1 where torch's default has 16).
    """
    for layer in vae.modules():
        if hasattr(layer, "weight"):
            inputs = layer.weight[0].numel()
            if isinstance(layer, nn.ConvTranspose2d):           # (inputs, outputs, k, k): each pixel sees k^2 / 4 taps
                inputs = layer.weight[:, 0].numel() / math.prod(layer.stride)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / inputs))
            nn.init.zeros_(layer.bias)
    with torch.no_grad():
        vae.encoder[-1].weight /= 10
        vae.decoder[-1].weight /= 10
    return vae


ARCHITECTURES = {"light": light, "original": original}


def squared_error(x_hat, x):
    """Squared error summed over pixels, mean over faces; both (B, 1, H, W)."""
    return (x_hat - x).square().sum((1, 2, 3)).mean()


def kl_divergence(mu, sigma):
    """KL(N(mu, sigma^2) || N(0, 1)) summed over dimensions, mean over faces; both (B, z_dim).

    Kingma and Welling 2014, appendix B.
    """
    return (mu.square() + sigma.square() - 1 - 2 * sigma.log()).sum(1).mean() / 2
