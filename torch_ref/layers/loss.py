"""Losses that torch.nn.functional leaves to its users. Axes: b batch, d features."""

from collections.abc import Callable

import torch


def vae_loss(
    output: torch.Tensor,
    input: torch.Tensor,
    mean: torch.Tensor,
    logvar: torch.Tensor,
    loss_func: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Loss of a reconstruction, and the divergence of a code's distribution from the normal.

    Kingma, Welling (2013), "Auto-encoding variational Bayes", arXiv 1312.6114, appendix B.

    Args:
        output: the reconstruction.
        input: what it should be.
        mean: of the code, (b, d).
        logvar: logarithm of the code's variance, (b, d).
        loss_func: called with output and input, such as `torch.nn.functional.mse_loss`.

    >>> zero = torch.zeros(2, 3)
    >>> vae_loss(zero, zero + 2, zero + 1, zero, torch.nn.functional.mse_loss)  # 4 + 3 / 2
    tensor(5.5000)
    """
    recon_loss = loss_func(output, input)
    kl_loss = torch.mean(0.5 * torch.sum(torch.exp(logvar) + mean**2 - 1.0 - logvar, 1))
    return recon_loss + kl_loss
