"""A generative model of time series with gaps: an unobserved state follows a differential equation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ude.models.integrator import Integrator
from ude.models.posterior import Posterior
from ude.problems import ODEProblem, Solution


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """What a latent ODE makes of time series.

    Args:
        values: At all times, measured or not, shape `(batch, times, features)`.
        posterior: Distribution of the initial state from which one was drawn.
        solution: Of the latent equation, with states of shape `(times, batch, latent)`; what a regularizer takes.
    """

    values: Tensor
    posterior: Posterior
    solution: Solution


class LatentODE(nn.Module):
    r"""Latent ODE: $z(t_0) \sim q(z \mid \text{data})$, $\dot z = f(t, z)$, $x(t) = \text{decoder}(z(t))$.

    Args:
        encoder: From `(data, mask, ts)` to a `Posterior`, such as a `GRUEncoder`.
        field: Called as `f(t, z)`.
        decoder: From `(*batch, latent)` to `(*batch, features)`.
        integrator: How the latent equation is solved. A mini-batch is one state with one norm unless it says
            `batched=True`.

    Example:
        The model of the PhysioNet tables of Pal et al. (2021):

        >>> from ude.models import MLP, DenseField, GRUEncoder
        >>> seed = torch.Generator().manual_seed(0)
        >>> widths = (20, 50, 20, 50, 20, 50, 20, 50, 20)
        >>> model = LatentODE(
        ...     GRUEncoder(37, latent=20, state=50, gate_width=40, head_width=50, generator=seed),
        ...     DenseField(widths, is_autonomous=True, activates_input=True, generator=seed),
        ...     MLP(20, 37, depth=0, generator=seed),
        ...     integrator=Integrator(rtol=1.4e-8, atol=1.4e-8),
        ... )
        >>> data = torch.zeros(3, 49, 37, dtype=torch.float64)
        >>> ts = torch.arange(49, dtype=torch.float64) / 48
        >>> model(data, data > 0, ts, generator=seed).values.shape
        torch.Size([3, 49, 37])

    Reference:
        Rubanova, Chen & Duvenaud (2019), Latent ODEs for irregularly-sampled time series, arXiv:1907.03907.
    """

    def __init__(
        self,
        encoder: nn.Module,
        field: nn.Module,
        decoder: Callable[[Tensor], Tensor],
        *,
        integrator: Integrator = Integrator(),  # noqa: B008
    ) -> None:
        super().__init__()
        for name, part in {"encoder": encoder, "field": field, "decoder": decoder}.items():
            if not callable(part) or isinstance(part, type):
                raise ValueError(f"`{name}` must be a module or function, got {part!r}.")
        self.encoder, self.field, self.decoder = encoder, field, decoder
        self.integrator = integrator

    def forward(
        self,
        data: Tensor,
        mask: Tensor,
        ts: Tensor,
        *,
        generator: torch.Generator | None = None,
        dense: bool = True,
    ) -> Reconstruction:
        """Encode, draw one initial state per sample, solve and decode.

        Args:
            data: Measurements, shape `(batch, times, features)`, any finite number where nothing was measured.
            mask: True, or 1, where there is a measurement, same shape.
            ts: Times in ascending order, shape `(times,)`.
            generator: Draws the initial states; the global one of torch if not given.
            dense: Keep the continuous solution, which some regularizers ask for.

        Raises:
            ValueError: If shapes or number formats do not fit together.
            SolveError: If the solve fails.
        """
        posterior = self.encoder(data, mask, ts)
        solution = self.solve(posterior.sample(generator), ts, dense=dense)
        return Reconstruction(self.decode(solution), posterior, solution)

    def solve(self, z0: Tensor, ts: Tensor, *, dense: bool = True) -> Solution:
        """Solve the latent equation from `z0`, shape `(batch, latent)`, at `ts[0]`, and save at all `ts`."""
        return self.integrator.solve(self.problem(z0, ts), save_at=ts, dense=dense)

    def problem(self, z0: Tensor, ts: Tensor) -> ODEProblem:
        """Return the problem that `solve` solves, for a regularizer whose `prepare` changes it.

        Solve what `prepare` returns with `model.integrator.solve`.
        """
        return self.integrator.problem(self.field, z0, (ts[0], ts[-1]))

    def decode(self, solution: Solution) -> Tensor:
        """Return the values at the saved states, shape `(batch, times, features)`."""
        return self.decoder(solution.ys).transpose(0, 1)

    def extra_repr(self) -> str:
        """Name method and tolerances."""
        integrator = self.integrator
        return f"method={integrator.method}, rtol={integrator.rtol}, atol={integrator.atol}"


def elbo(
    reconstruction: Reconstruction, data: Tensor, mask: Tensor, *, kl_weight: float = 1.0, sigma: float = 0.01
) -> Tensor:
    r"""Evidence lower bound per measurement, averaged over samples; its negative is the loss of a latent ODE.

    $$\frac{1}{B} \sum_b \Bigl[ \frac{1}{\sum m_b} \sum_{t,i} m_{bti}
      \Bigl( -\frac{(\hat x_{bti} - x_{bti})^2}{2 \sigma^2} - \log \sigma - \tfrac12 \log 2 \pi \Bigr)
      - \lambda\, D_b \Bigr]$$

    with the divergence $D_b$ of `Posterior.divergence`. Both terms are means, as in the program of Pal et al. (2021),
    not the sums of the textbook bound. That program counts the constant at missing measurements too, which changes the
    value but no gradient.

    Args:
        reconstruction: From the model.
        data: Measurements, shape `(batch, times, features)`.
        mask: True, or 1, where there is a measurement, same shape.
        kl_weight: Weight of the divergence, $\lambda$.
        sigma: Standard deviation of a measurement, $\sigma$, in the unit of the data.

    Raises:
        ValueError: If `sigma` is not positive or shapes differ.
    """
    if not sigma > 0:
        raise ValueError(f"`sigma` must be positive, got {sigma}.")
    constant = -math.log(sigma) - 0.5 * math.log(2.0 * math.pi)
    likelihood = constant - squared_error(reconstruction.values, data, mask) / (2.0 * sigma**2)
    return (likelihood - kl_weight * reconstruction.posterior.divergence()).mean()


def squared_error(values: Tensor, data: Tensor, mask: Tensor) -> Tensor:
    r"""Mean square of the errors at the measurements of every sample, $\sum m (\hat x - x)^2 / \sum m$.

    Args:
        values: What the model says, shape `(batch, times, features)`.
        data: What was measured, same shape.
        mask: True, or 1, where there is a measurement, same shape.

    Returns:
        One number per sample, shape `(batch,)`, zero where nothing was measured. Its mean is the figure of the tables.

    Raises:
        ValueError: If shapes differ.

    Example:
        >>> squared_error(torch.ones(1, 2, 1), torch.zeros(1, 2, 1), torch.tensor([[[True], [False]]]))
        tensor([1.])
    """
    if not values.shape == data.shape == mask.shape:
        raise ValueError(
            f"`values`, `data` and `mask` must have one shape, got {tuple(values.shape)}, {tuple(data.shape)} and "
            f"{tuple(mask.shape)}."
        )
    weight = mask.to(data.dtype)
    error = (values - data) * weight
    return error.square().sum((-2, -1)) / weight.sum((-2, -1)).clamp(min=1.0)
