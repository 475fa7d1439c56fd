"""A recurrent network that reads irregular measurements backwards in time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ude.ad import attach
from ude.models.mlp import MLP
from ude.models.posterior import Posterior


class GRUEncoder(nn.Module):
    r"""Distribution of the initial state of a trajectory, given measurements of it with gaps.

    The measurements are read from the last to the first. The hidden state $h = (\mu, s)$ starts at zero; with the input
    $x$ of a time, i.e. measurements, mask and time to the next one,

    $$v = \sigma(V_2 \tanh(V_1 [h, x])), \quad r = \sigma(R_2 \tanh(R_1 [h, x])), \quad
      n = N_2 \tanh(N_1 [(r \mu, r s), x]), \quad h \leftarrow h + v\,(n - h)$$

    with biases in all layers; both halves of $h$ share the gates. A sample with nothing measured at a time keeps its
    state there. A hidden layer of tanh and a linear one turn the last state into mean and log-variance of $z_0$.

    This is the fixed cost of every training step of a latent ODE, so it is written for speed: what the inputs do to all
    three first layers at all times is one product, the gates of a time are two, and the derivative of the recursion is
    written out. Second derivatives raise.

    Args:
        features: Number of measured quantities.
        latent: Size of $z_0$.
        state: Size of $\mu$ and of $s$.
        gate_width: Width of the hidden layers of the gates and of the candidate $n$.
        head_width: Width of the hidden layer between the last state and $z_0$.
        generator: Source of the initial weights (Glorot; biases zero); the global one of torch if not given.
        dtype: Floating-point type of the parameters.

    Raises:
        ValueError: If a size is not positive.

    Example:
        >>> encoder = GRUEncoder(3, latent=2)
        >>> data, mask = torch.rand(5, 7, 3, dtype=torch.float64), torch.ones(5, 7, 3, dtype=torch.bool)
        >>> encoder(data, mask, torch.linspace(0, 1, 7, dtype=torch.float64)).mean.shape
        torch.Size([5, 2])

    Reference:
        Rubanova, Chen & Duvenaud (2019), Latent ODEs for irregularly-sampled time series, arXiv:1907.03907. Sizes and
        the treatment of $s$ as an unrestricted number as in Pal, Ma, Shah & Rackauckas (2021), Opening the blackbox,
        arXiv:2105.03918; their program counts the time difference among the mask, so that it takes hardly any time for
        unobserved.
    """

    def __init__(
        self,
        features: int,
        *,
        latent: int = 20,
        state: int = 50,
        gate_width: int = 40,
        head_width: int = 50,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        sizes = {"features": features, "latent": latent, "state": state, "gate_width": gate_width}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"`{name}` must be at least 1, got {size}.")
        self.features, self.latent, self.state, self.gate_width = features, latent, state, gate_width
        empty = lambda *shape: nn.Parameter(torch.empty(*shape, dtype=dtype))  # noqa: E731
        # Rows in the order update gate, reset gate, candidate.
        self.input_weight = empty(3 * gate_width, 2 * features + 1)
        self.input_bias = empty(3 * gate_width)
        self.gate_weight = empty(2 * gate_width, 2 * state)
        self.candidate_weight = empty(gate_width, 2 * state)
        self.gate_out_weight = empty(2, state, gate_width)
        self.gate_out_bias = empty(2, state)
        self.candidate_out_weight = empty(2 * state, gate_width)
        self.candidate_out_bias = empty(2 * state)
        self.head = MLP(2 * state, 2 * latent, width=head_width, depth=1, generator=generator, dtype=dtype)
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters again."""
        first = math.sqrt(6.0 / (2 * self.state + 2 * self.features + 1 + self.gate_width))
        for weight in (self.input_weight, self.gate_weight, self.candidate_weight):
            weight.uniform_(-first, first, generator=generator)
        for weight in (self.gate_out_weight, self.candidate_out_weight):
            bound = math.sqrt(6.0 / (weight.shape[-2] + weight.shape[-1]))
            weight.uniform_(-bound, bound, generator=generator)
        for bias in (self.input_bias, self.gate_out_bias, self.candidate_out_bias):
            bias.zero_()
        self.head.reset_parameters(generator)

    def forward(self, data: Tensor, mask: Tensor, ts: Tensor) -> Posterior:
        """Return the distribution of the state at the first time.

        Args:
            data: Measurements, shape `(batch, times, features)`; what was not measured is any finite number, such as 0.
            mask: True, or 1, where there is a measurement, same shape.
            ts: Times in ascending order, shape `(times,)`.

        Raises:
            ValueError: If shapes or number formats do not fit together.
        """
        self._check(data, mask, ts)
        last = self._read(data, mask, ts)
        mean, log_variance = self.head(last).chunk(2, dim=-1)
        return Posterior(mean, log_variance)

    def _read(self, data: Tensor, mask: Tensor, ts: Tensor) -> Tensor:
        """Return the hidden state after all measurements, shape `(batch, 2 * state)`."""
        observed = mask.any(-1).to(data.dtype).mT.contiguous()
        gaps = torch.cat([ts.diff(), ts.new_zeros(1)]).to(data)
        inputs = torch.cat([data, mask.to(data.dtype), gaps.unsqueeze(-1).expand(*data.shape[:2], 1)], dim=-1)
        # tanh x = 2 sigma(2 x) - 1, and sigma costs a quarter of tanh in double precision.
        weight, bias = 2.0 * self.input_weight, 2.0 * self.input_bias
        drive = torch.baddbmm(bias.unsqueeze(-1), weight.expand(len(ts), -1, -1), inputs.permute(1, 2, 0))
        return _recur(
            drive,
            observed,
            _Weights(
                gate=2.0 * self.gate_weight,
                candidate=2.0 * self.candidate_weight,
                gate_out=2.0 * self.gate_out_weight,
                gate_shift=(self.gate_out_bias - self.gate_out_weight.sum(-1)).unsqueeze(-1),
                candidate_out=2.0 * self.candidate_out_weight,
                candidate_shift=(self.candidate_out_bias - self.candidate_out_weight.sum(-1)).unsqueeze(-1),
            ),
        ).mT

    def _check(self, data: Tensor, mask: Tensor, ts: Tensor) -> None:
        if data.ndim != 3 or data.shape[-1] != self.features or mask.shape != data.shape:
            raise ValueError(
                f"`data` and `mask` must have shape (batch, times, {self.features}), got {tuple(data.shape)} and "
                f"{tuple(mask.shape)}."
            )
        if ts.shape != data.shape[1:2]:
            raise ValueError(f"`ts` must hold the {data.shape[1]} times of `data`, got shape {tuple(ts.shape)}.")
        if data.dtype != self.input_weight.dtype:
            raise ValueError(
                f"`data` must have the dtype of the parameters, {self.input_weight.dtype}, got {data.dtype}. Convert "
                "one of them, for example with `model.to(data.dtype)`."
            )


class _Weights(NamedTuple):
    """Those of the recursion, for layers of sigma in the place of tanh, with features as rows."""

    gate: Tensor
    candidate: Tensor
    gate_out: Tensor
    gate_shift: Tensor
    candidate_out: Tensor
    candidate_shift: Tensor


class _Moment(NamedTuple):
    """What the derivative needs of one time: the state before, layers after sigma, and the change offered."""

    h: Tensor
    hidden: Tensor
    gates: Tensor
    candidate: Tensor
    change: Tensor


def _recur(drive: Tensor, observed: Tensor, weights: _Weights) -> Tensor:
    """Go through all times, the last one first.

    Args:
        drive: What the inputs add to the first layers, shape `(times, 3 * width, batch)`.
        observed: 1 where a sample has a measurement, shape `(times, batch)`.
        weights: Those of the recursion.

    Returns:
        The last state, shape `(2 * state, batch)`.
    """
    moments: list[_Moment] = []
    with torch.no_grad():
        plain = _Weights(*(w.detach() for w in weights))
        w = plain
        states, width, batch = w.gate_out.shape[1], w.gate_out.shape[2], drive.shape[-1]
        h = drive.new_zeros(2, states, batch)
        for inputs, seen in zip(reversed(drive.detach().unbind()), reversed(observed.unbind()), strict=True):
            hidden = torch.addmm(inputs[: 2 * width], w.gate, h.view(-1, batch)).sigmoid_().view(2, width, batch)
            gates = torch.baddbmm(w.gate_shift, w.gate_out, hidden).sigmoid_()
            gated = (h * gates[1]).view(-1, batch)
            candidate = torch.addmm(inputs[2 * width :], w.candidate, gated).sigmoid_()
            change = torch.addmm(w.candidate_shift, w.candidate_out, candidate).view_as(h).sub_(h)
            moments.append(_Moment(h, hidden, gates, candidate, change))
            h = torch.addcmul(h, change, gates[0] * seen)
    pullback = lambda cotangent: _pull_back(cotangent, moments, observed, plain)  # noqa: E731
    return attach(h.view(-1, batch), [drive, *weights], pullback)


def _pull_back(cotangent: Tensor, moments: Sequence[_Moment], observed: Tensor, w: _Weights) -> list[Tensor]:
    """Return the cotangents of the inputs and of all weights, given that of the last state.

    Every product is added to its sum while its factors are in the cache; buffers are written over from time to time.
    """
    states, width, batch = w.gate_out.shape[1], w.gate_out.shape[2], observed.shape[-1]
    sums = _Weights(*(torch.zeros_like(weight) for weight in w))
    d_drive = cotangent.new_empty(len(moments), 3 * width, batch)
    d_h = cotangent.clone(memory_format=torch.contiguous_format).view(2, states, batch)
    d_new, d_gates, d_gated, work = (torch.empty_like(d_h) for _ in range(4))
    d_candidate, d_hidden = d_h.new_empty(width, batch), d_h.new_empty(2, width, batch)
    flat = lambda x: x.view(-1, batch)  # noqa: E731
    through_sigma = torch.ops.aten.sigmoid_backward.grad_input
    for (h, hidden, gates, candidate, change), seen, d_inputs in zip(
        reversed(moments), observed.unbind(), d_drive.unbind(), strict=True
    ):
        d_hidden_in, d_candidate_in = d_inputs[: 2 * width], d_inputs[2 * width :]
        # h + v (n - h), with v the update gate where something was measured.
        torch.mul(d_h, gates[0] * seen, out=d_new)
        torch.mul(d_h, change, out=work)
        torch.add(work[0], work[1], out=d_gates[0]).mul_(seen)
        sums.candidate_out.addmm_(flat(d_new), candidate.mT)
        sums.candidate_shift.add_(flat(d_new).sum(-1, keepdim=True))
        through_sigma(torch.mm(w.candidate_out.mT, flat(d_new), out=d_candidate), candidate, grad_input=d_candidate_in)
        torch.mul(h, gates[1], out=work)
        sums.candidate.addmm_(d_candidate_in, flat(work).mT)
        torch.mm(w.candidate.mT, d_candidate_in, out=flat(d_gated))
        torch.mul(d_gated, gates[1], out=work)
        d_h.sub_(d_new).add_(work)
        torch.mul(d_gated, h, out=work)
        torch.add(work[0], work[1], out=d_gates[1])
        through_sigma(d_gates, gates, grad_input=d_gates)
        sums.gate_out.baddbmm_(d_gates, hidden.mT)
        sums.gate_shift.add_(d_gates.sum(-1, keepdim=True))
        torch.bmm(w.gate_out.mT, d_gates, out=d_hidden)
        through_sigma(flat(d_hidden), flat(hidden), grad_input=d_hidden_in)
        sums.gate.addmm_(d_hidden_in, flat(h).mT)
        flat(d_h).addmm_(w.gate.mT, d_hidden_in)
    return [d_drive, *sums]
