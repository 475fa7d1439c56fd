"""A generative model of time series whose unobserved state follows a stochastic differential equation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from ude.models.integrator import Integrator
from ude.models.mlp import MLP
from ude.models.neural_sde import SHARED_STEPS, NeuralSDE, drawn_path
from ude.models.posterior import Posterior
from ude.problems import SDEProblem, Solution


@dataclass(frozen=True, slots=True)
class StochasticReconstruction:
    """What a latent SDE makes of time series.

    Args:
        values: At all times, measured or not, shape `(batch, times, features)`.
        posterior: Distribution of the initial state from which one was drawn.
        initial_divergence: Kullback-Leibler divergence of that distribution from its prior, shape `(batch,)`.
        path_divergence: Integrand of the divergence of the posterior process from the prior process, integrated along
            the path; its mean over paths is the divergence. Shape `(batch,)`.
        solution: Of the posterior equation; `ys` are the states, shape `(times, batch, latent)`, and the divergence.
    """

    values: Tensor
    posterior: Posterior
    initial_divergence: Tensor
    path_divergence: Tensor
    solution: Solution


class LatentSDE(nn.Module):
    r"""Latent SDE: a prior process, and a posterior process with the same noise that knows the data.

    $$dz = h_\theta(t, z)\, dt + \sigma(t, z)\, dW, \qquad dz = h_\varphi(t, z, c_t)\, dt + \sigma(t, z)\, dW, \qquad
      x(t) = \text{decoder}(z(t))$$

    with the context $c_t$ that the encoder makes of the data. Since both have the same diffusion, the posterior process
    has the divergence $\mathrm{KL} = E \int \frac12 |u|^2\, dt$, $\sigma u = h_\varphi - h_\theta$, from the prior one
    (Girsanov); the integral is one more state of the equation.

    Args:
        encoder: From `(data, mask, ts)` to a `Posterior` of the state at `ts[0]`, and a context of shape
            `(batch, times, context)`, such as a `ContextEncoder`. Between two times the context is that of the later.
        posterior_drift: $h_\varphi$, called as `f(t, y)` with state and context side by side, shape
            `(batch, latent + context)`; returns `(batch, latent)`.
        prior_drift: $h_\theta$, called as `f(t, z)`.
        diffusion: $\sigma$, called as `g(t, z)`, of the shape of the state and nowhere zero, such as
            `SeparateDiffusion`.
        decoder: From `(*batch, latent)` to `(*batch, features)`.
        latent: Components of the state.
        integrator: How the equations are solved; by default `SOSRI()` with tolerances of 1e-2.
        dtype: Floating-point type of the prior's parameters, mean and log-variance of the initial state.

    Example:
        >>> from ude.models import MLP, DenseField
        >>> seed = torch.Generator().manual_seed(0)
        >>> model = LatentSDE(
        ...     ContextEncoder(3, latent=4, context=8, state=16, generator=seed),
        ...     DenseField((12, 32, 4), generator=seed),
        ...     DenseField((4, 32, 4), generator=seed),
        ...     SeparateDiffusion(4, generator=seed),
        ...     MLP(4, 3, depth=0, generator=seed),
        ...     latent=4,
        ... )
        >>> data, ts = torch.zeros(5, 7, 3, dtype=torch.float64), torch.linspace(0.0, 1.0, 7, dtype=torch.float64)
        >>> made = model(data, torch.ones_like(data), ts, generator=seed)
        >>> made.values.shape, made.path_divergence.shape
        (torch.Size([5, 7, 3]), torch.Size([5]))

    Reference:
        Li, Wong, Chen & Duvenaud (2020), Scalable gradients for stochastic differential equations, AISTATS, section 5.
    """

    def __init__(
        self,
        encoder: Callable[[Tensor, Tensor, Tensor], tuple[Posterior, Tensor]],
        posterior_drift: Callable[..., Tensor],
        prior_drift: Callable[..., Tensor],
        diffusion: Callable[..., Tensor],
        decoder: Callable[[Tensor], Tensor],
        *,
        latent: int,
        integrator: Integrator = SHARED_STEPS,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        parts = {"encoder": encoder, "posterior_drift": posterior_drift, "decoder": decoder}
        for name, part in parts.items():
            if not callable(part) or isinstance(part, type):
                raise ValueError(f"`{name}` must be a module or function, got {part!r}.")
        self.encoder, self.posterior_drift, self.decoder = encoder, posterior_drift, decoder
        self.prior = NeuralSDE(prior_drift, diffusion, integrator=integrator)
        self.prior_mean = nn.Parameter(torch.zeros(latent, dtype=dtype))
        self.prior_log_variance = nn.Parameter(torch.zeros(latent, dtype=dtype))

    def forward(
        self, data: Tensor, mask: Tensor, ts: Tensor, *, generator: torch.Generator | None = None
    ) -> StochasticReconstruction:
        """Encode, draw one initial state and path per sample, solve and decode.

        Args:
            data: Measurements, shape `(batch, times, features)`, any finite number where nothing was measured.
            mask: True, or 1, where there is a measurement, same shape.
            ts: Times in ascending order, shape `(times,)`.
            generator: Draws initial states and noise; the global one of torch if not given.

        Raises:
            ValueError: If shapes or number formats do not fit together.
            SolveError: If the solve fails, for example because the diffusion vanishes.
        """
        posterior, context = self.encoder(data, mask, ts)
        if context.shape[:2] != data.shape[:2]:
            raise ValueError(
                f"The encoder must return a context of shape ({data.shape[0]}, {data.shape[1]}, context), got "
                f"{tuple(context.shape)}."
            )
        z0 = posterior.sample(generator)
        integrator = self.prior.integrator
        problem = SDEProblem(
            _Posterior(self, context, ts),
            self._diffusion,
            (z0, z0.new_zeros(len(z0), 1)),
            (ts[0], ts[-1]),
            batched=integrator.batched,
            path=drawn_path(integrator, generator),
        )
        solution = integrator.solve(problem, save_at=ts)
        states, divergence = solution.ys
        initial = kl_divergence(_normal(posterior.mean, posterior.log_variance), self._initial).sum(-1)
        values = self.decoder(states).transpose(0, 1)
        return StochasticReconstruction(values, posterior, initial, divergence[-1, :, 0], solution)

    def sample(self, samples: int, ts: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw series from the prior, at times in ascending order; shape `(samples, times, features)`."""
        mean, log_variance = (x.expand(samples, -1) for x in (self.prior_mean, self.prior_log_variance))
        z0 = Posterior(mean, log_variance).sample(generator)
        solution = self.prior.solve(z0, generator=generator, save_at=ts, t_span=(ts[0], ts[-1]), dense=False)
        return self.decoder(solution.ys).transpose(0, 1)

    @property
    def _initial(self) -> Normal:
        """Prior of the initial state."""
        return _normal(self.prior_mean, self.prior_log_variance)

    def _diffusion(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the diffusion of the state, and none of the divergence."""
        z, divergence = state
        return self.prior.diffusion(t, z), torch.zeros_like(divergence)


def path_elbo(
    reconstruction: StochasticReconstruction, data: Tensor, mask: Tensor, *, kl_weight: float = 1.0, sigma: float = 0.01
) -> Tensor:
    r"""Evidence lower bound, averaged over samples; its negative is the loss of a latent SDE.

    $$\frac{1}{B} \sum_b \Bigl[ \sum_{t,i} m_{bti} \log N(x_{bti};\, \hat x_{bti}, \sigma^2)
      - \lambda \bigl( \mathrm{KL}(q(z_0) \| p(z_0)) + \tfrac12 \textstyle\int |u|^2\, dt \bigr) \Bigr]$$

    With $\lambda = 1$ its expectation is at most the logarithm of the likelihood, and equal to it where the posterior
    process is the true one.

    Args:
        reconstruction: From the model.
        data: Measurements, shape `(batch, times, features)`.
        mask: True, or 1, where there is a measurement, same shape.
        kl_weight: Weight of the divergences, $\lambda$.
        sigma: Standard deviation of a measurement, $\sigma$, in the unit of the data.

    Raises:
        ValueError: If `sigma` is not positive or shapes differ.
    """
    if not sigma > 0:
        raise ValueError(f"`sigma` must be positive, got {sigma}.")
    if not reconstruction.values.shape == data.shape == mask.shape:
        raise ValueError(
            f"Values, `data` and `mask` must have one shape, got {tuple(reconstruction.values.shape)}, "
            f"{tuple(data.shape)} and {tuple(mask.shape)}."
        )
    weight = mask.to(data.dtype)
    error = ((reconstruction.values - data) * weight / sigma).square()
    likelihood = -0.5 * error - weight * (math.log(sigma) + 0.5 * math.log(2.0 * math.pi))
    divergence = reconstruction.initial_divergence + reconstruction.path_divergence
    return (likelihood.sum((-2, -1)) - kl_weight * divergence).mean()


class ContextEncoder(nn.Module):
    """A GRU that reads a series with gaps backwards: what it knows at a time is what is still to come.

    Args:
        features: Measured quantities.
        latent: Components of the latent state.
        context: Components of the context.
        state: Components of the GRU's state.
        generator: Source of the initial weights; the global one of torch if not given.
        dtype: Floating-point type of the parameters.
    """

    def __init__(
        self,
        features: int,
        *,
        latent: int,
        context: int = 32,
        state: int = 64,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.gru = nn.GRU(2 * features + 1, state, batch_first=True, dtype=dtype)
        bound = state**-0.5
        with torch.no_grad():
            for weight in self.gru.parameters():
                weight.uniform_(-bound, bound, generator=generator)
        self.context = MLP(state, context, depth=0, generator=generator, dtype=dtype)
        self.start = MLP(context, 2 * latent, depth=0, generator=generator, dtype=dtype)

    def forward(self, data: Tensor, mask: Tensor, ts: Tensor) -> tuple[Posterior, Tensor]:
        """Return the distribution of the state at `ts[0]`, and the context, shape `(batch, times, context)`."""
        known = mask.to(data.dtype)
        gaps = torch.cat([ts.diff(), ts.new_zeros(1)]).to(data.dtype)
        inputs = torch.cat([data * known, known, gaps.expand(len(data), -1).unsqueeze(-1)], dim=-1)
        context = self.context(self.gru(inputs.flip(1))[0].flip(1))
        return Posterior(*self.start(context[:, 0]).chunk(2, dim=-1)), context


class SeparateDiffusion(nn.Module):
    r"""A diagonal diffusion $\sigma_i(z_i) = \sigma_{max}\, \operatorname{sigmoid}(N_i(z_i))$, a network per component.

    It is positive, and each component depends on its own state alone, which methods for diagonal noise need for their
    order.

    Args:
        latent: Components of the state.
        width: Hidden units per component.
        largest: $\sigma_{max}$.
        generator: Source of the initial weights; the global one of torch if not given.
        dtype: Floating-point type of the parameters.
    """

    def __init__(
        self,
        latent: int,
        *,
        width: int = 16,
        largest: float = 1.0,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if not largest > 0:
            raise ValueError(f"`largest` must be positive, got {largest}.")
        self.largest = largest
        self.networks = MLP(
            1, 1, width=width, depth=1, activation="softplus", replicates=latent, generator=generator, dtype=dtype
        )

    def forward(self, t: float | Tensor, z: Tensor) -> Tensor:
        """Return the diffusion, of the shape of the state."""
        columns = z.reshape(-1, z.shape[-1]).mT.unsqueeze(-1)
        return self.largest * torch.sigmoid(self.networks(columns)).squeeze(-1).mT.reshape(z.shape)


class _Posterior:
    """The drift of the posterior process and of the divergence.

    Args:
        model: Whose drifts and diffusion.
        context: Shape `(batch, times, context)`.
        ts: Its times, shape `(times,)`.
    """

    def __init__(self, model: LatentSDE, context: Tensor, ts: Tensor) -> None:
        self.model, self.context, self.ts = model, context, ts.detach()

    def __call__(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        z, _ = state
        drift = self.model.posterior_drift(t, torch.cat([z, self._context(t)], dim=-1))
        control = (drift - self.model.prior.drift(t, z)) / self.model.prior.diffusion(t, z)
        return drift, 0.5 * control.square().sum(-1, keepdim=True)

    def _context(self, t: Tensor) -> Tensor:
        """Return the context of the next time after `t`, of each sample if they have times of their own."""
        now, last = t.detach().reshape(-1).contiguous(), len(self.ts) - 1
        place = torch.searchsorted(self.ts.to(t.dtype), now, right=True).clamp(max=last)
        samples = torch.arange(len(self.context), device=place.device)
        return self.context[samples, place.expand(len(samples))]


def _normal(mean: Tensor, log_variance: Tensor) -> Normal:
    return Normal(mean, torch.exp(0.5 * log_variance))
