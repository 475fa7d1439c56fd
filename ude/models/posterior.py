"""What is known about an unobserved state: a normal distribution with independent components."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Posterior:
    r"""Normal distribution $q(z) = \prod_i N(z_i;\, \mu_i, \sigma_i^2)$ of every sample's state.

    Args:
        mean: $\mu$, shape `(batch, latent)`.
        log_variance: $\log \sigma^2$, same shape.

    Example:
        >>> Posterior(torch.zeros(5, 2), torch.zeros(5, 2)).divergence()
        tensor([0., 0., 0., 0., 0.])
    """

    mean: Tensor
    log_variance: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        r"""Draw $\mu + \sigma \varepsilon$, one state per sample, differentiable in $\mu$ and $\sigma$."""
        mean = self.mean
        device = mean.device if generator is None else generator.device
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=device).to(mean.device)
        return mean + torch.exp(0.5 * self.log_variance) * noise

    def divergence(self) -> Tensor:
        r"""Return the Kullback-Leibler divergence from the standard normal distribution, per component.

        $$\frac{1}{2 d} \sum_{i=1}^{d} (\sigma_i^2 + \mu_i^2 - 1 - \log \sigma_i^2)$$

        Returns:
            One number per sample, shape `(batch,)`: the mean over the d components, not their sum.
        """
        terms = self.log_variance.exp() + self.mean.square() - 1.0 - self.log_variance
        return 0.5 * terms.mean(-1)
