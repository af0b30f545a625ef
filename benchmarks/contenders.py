"""What benchmarks/speed.py times: the reference recipe in a plain PyTorch loop and in pythae, and our own training.

In: Faces with a training and a validation split. Out: what trains for an epoch.
"""
from dataclasses import replace

import numpy as np
import torch

import metric_vae.run as vae_script
from data.batches import batches
from metric_vae.model import kl_divergence, original, squared_error
from metric_vae.train import LEAST, train
from training.log import read_log
from training.settings import default_settings

SEED = 0
Z_DIM, ALPHA, BATCH, LEARNING_RATE = 512, 0.1, 64, 1e-3         # the reference recipe, without its regulariser


def few(faces, count, val):
    """The first training faces and the first validation faces; the others in no split."""
    split = np.full(len(faces), -1)
    split[faces.rows("train")[:count]] = 0
    split[faces.rows("val")[:val]] = 1
    return replace(faces, split=split)


class PlainLoop:
    """The reference recipe as anyone would write it in PyTorch: fp32, default layout, default Adam."""

    def __init__(self, faces, device):
        torch.manual_seed(SEED)
        as_float = lambda split: torch.from_numpy(faces.images[faces.rows(split)]).float()[:, None].to(device) / 255
        self.train, self.val = as_float("train"), as_float("val")
        self.vae = original(faces.size, Z_DIM).to(device)
        self.optimizer = torch.optim.Adam(self.vae.parameters(), LEARNING_RATE)

    def loss(self, x):
        mu, sigma = self.vae.encode(x)
        z = mu + sigma * torch.randn_like(mu)
        return (squared_error(self.vae.decode(z), x) + ALPHA * kl_divergence(mu, sigma)).mean()

    def train_epoch(self):
        self.vae.train()
        for rows in torch.randperm(len(self.train)).split(BATCH):
            self.optimizer.zero_grad()
            self.loss(self.train[rows]).backward()
            self.optimizer.step()

    @torch.no_grad()
    def val_loss(self):
        self.vae.eval()
        return sum(float(self.loss(x)) * len(x) for x in self.val.split(BATCH)) / len(self.val)


class OurLoop:
    """Our own training of the reference's network, an epoch at a time: each continues from the last one's checkpoint.
    """

    def __init__(self, faces, device, precision, folder):
        self.faces, self.device, self.precision, self.folder = faces, device, precision, folder
        self.settings = replace(default_settings(vae_script), ARCHITECTURE="original", Z_DIM=Z_DIM, METRIC_DIMS=None,
                                ALPHA=(ALPHA, ALPHA), BATCH=BATCH, LEARNING_RATE=(LEARNING_RATE, LEARNING_RATE),
                                WARM_UP=0.0, ADAM_BETA2=0.999, MAX_GRADIENT=None, FLIP=False, STEPS=0)

    def train_epoch(self):
        """Train one more epoch."""
        steps = len(batches(self.faces.rows("train"), BATCH, least=LEAST))
        self.settings = replace(self.settings, STEPS=self.settings.STEPS + steps)
        train("no_dist_reg", self.faces, None, self.settings, self.folder, SEED, self.device, self.precision)


def our_log(faces, device, precision, folder):
    """The log of our own training with its own settings, but the reference's ALPHA."""
    settings = replace(default_settings(vae_script), ALPHA=(ALPHA, ALPHA))
    train("no_dist_reg", faces, None, settings, folder, SEED, device, precision)
    return read_log(folder)


def pythae_epoch(faces, device, folder):
    """A function that trains the reference's network for an epoch with pythae's own trainer."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.net = original(faces.size, Z_DIM).encoder

        def forward(self, x):
            mu, log_variance = self.net(x).chunk(2, 1)
            return ModelOutput(embedding=mu, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.net = original(faces.size, Z_DIM).decoder

        def forward(self, z):
            return ModelOutput(reconstruction=self.net(z))

    x = torch.from_numpy(faces.images[faces.rows("train")]).float()[:, None] / 255
    config = VAEConfig(input_dim=(1, faces.size, faces.size), latent_dim=Z_DIM, reconstruction_loss="mse")
    trainer = BaseTrainer(VAE(config, Encoder(), Decoder()).to(device), BaseDataset(x, torch.zeros(len(x))),
                          training_config=BaseTrainerConfig(folder, per_device_train_batch_size=BATCH,
                                                            learning_rate=LEARNING_RATE, no_cuda=device.type == "cpu"))
    trainer.prepare_training()
    return lambda: trainer.train_step(1)
