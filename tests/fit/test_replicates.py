"""Replicates fitted as one batch are what they are alone, and can be interrupted."""

import pytest
import torch

from ude import problems
from ude._checks import InputError
from ude.fit import (
    LBFGS,
    Adam,
    Checkpoint,
    Collocation,
    Interrupted,
    MultipleShooting,
    SingleShooting,
    SolverOptions,
    fit,
)
from ude.models import MLP, UDE

SHORT = (Adam(iterations=10), LBFGS(iterations=10))
CHAIN = (Collocation(optimizers=SHORT), MultipleShooting(optimizers=SHORT), SingleShooting(optimizers=SHORT))


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("strategy", CHAIN, ids=lambda s: type(s).__name__)
def test_each_replicate_equals_its_solo_fit(strategy, hybrid, data):
    models = hybrid.replicate(2, torch.Generator().manual_seed(1))
    together = fit(models, data, strategy=strategy)
    for i in range(2):
        alone = fit(models.member(i), data, strategy=strategy)
        # Batched matrix products round differently; 20 iterations amplify 1e-16 to at most 1e-10.
        torch.testing.assert_close(parameters(alone.model), parameters(together.members[i]), rtol=0, atol=1e-10)
        torch.testing.assert_close(alone.losses[0], together.losses[i], rtol=1e-10, atol=0)


def test_each_replicate_can_have_its_own_noise(hybrid, data, exact_data):
    models = hybrid.replicate(2, torch.Generator().manual_seed(1))
    strategy = SingleShooting(optimizers=SHORT)
    together = fit(models, [data, exact_data], strategy=strategy)
    for i, d in enumerate((data, exact_data)):
        # The scales are shared between data sets, so the objectives differ by a factor and Adam's clipping by rounding.
        assert together.data_of(i) is not None
        assert torch.equal(together.data_of(i).ys, d.ys)
        assert torch.equal(together.y0s[i], d.ys[:, 0])


def test_a_diverging_replicate_leaves_the_others_untouched(hybrid, data):
    models = hybrid.replicate(2, torch.Generator().manual_seed(1))
    wild = hybrid.replicate(2, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for p in wild.parameters():
            p[0] *= 1e3
    strategy = SingleShooting(optimizers=SHORT)
    calm, disturbed = fit(models, data, strategy=strategy), fit(wild, data, strategy=strategy)
    torch.testing.assert_close(
        parameters(disturbed.members[1]), parameters(calm.members[1]), rtol=0, atol=1e-10
    )  # as for solo fits
    assert disturbed.best == 1 or disturbed.losses[0].isfinite()


class Interruption:
    """Counts evaluations of the known part of `hybrid`, and raises Ctrl-C at a given one."""

    def __init__(self, at=-1):
        self.at, self.calls = at, 0

    def __deepcopy__(self, memo):
        return self  # models are copied, the count is not

    def __call__(self, t, y):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return 1.3 * y[..., 0], -1.8 * y[..., 1]


BRIEF = (Adam(iterations=5), LBFGS(iterations=5))
THREE_STAGES = (Collocation(optimizers=BRIEF), MultipleShooting(optimizers=BRIEF), SingleShooting(optimizers=BRIEF))


def fit_in_stages(known, data, **options):
    network = MLP(2, 2, width=5, depth=2, generator=torch.Generator().manual_seed(0))
    model = UDE(known, network, states=("x", "y"))
    generator = torch.Generator().manual_seed(3)
    solver = SolverOptions(dt=0.5)  # coarse enough to be refined at the end
    result = fit(model, data, strategy=THREE_STAGES, replicates=2, generator=generator, solver=solver, **options)
    return result, generator.get_state()


@pytest.fixture(scope="module")
def uninterrupted(data):
    known = Interruption()
    whole, rng = fit_in_stages(known, data)
    assert len(whole.history.phase) > 6 * 5
    return whole, rng, known.calls


@pytest.mark.parametrize(
    ("share", "phase"),
    [
        (0.002, "collocation, Adam"),
        (0.02, "multiple shooting, L-BFGS"),
        pytest.param(0.06, "single shooting, Adam", marks=pytest.mark.slow),
        (0.8, "single shooting, L-BFGS"),
    ],
    ids=["collocation", "multiple", "single", "refined"],
)
def test_a_resumed_fit_continues_bit_for_bit(share, phase, uninterrupted, data, tmp_path):
    whole, rng, calls = uninterrupted
    path = tmp_path / "fit.ckpt"
    with pytest.raises(Interrupted, match="Resume from") as caught:
        fit_in_stages(Interruption(int(share * calls)), data, checkpoint=path)
    assert 0 < len(caught.value.fit.history.phase) < len(whole.history.phase)
    assert caught.value.fit.history.phase[-1] == phase
    resumed, resumed_rng = fit_in_stages(Interruption(), data, checkpoint=path, resume=True)
    for ours, theirs in zip(resumed.members, whole.members, strict=True):
        assert torch.equal(parameters(ours), parameters(theirs))
    assert torch.equal(resumed.losses, whole.losses)
    assert torch.equal(resumed.history.loss, whole.history.loss)
    assert resumed.history.phase == whole.history.phase
    assert torch.equal(rng, resumed_rng)


def test_a_checkpoint_of_another_fit_is_refused(parametric, data, exact_data, tmp_path):
    place = Checkpoint(path=tmp_path / "fit.ckpt", every_iterations=5)
    strategy = SingleShooting(optimizers=(LBFGS(iterations=6),))
    fit(parametric, data, strategy=strategy, checkpoint=place)
    with pytest.raises(InputError, match="another fit"):
        fit(parametric, exact_data, strategy=strategy, checkpoint=place, resume=True)


def test_an_interruption_without_a_checkpoint_still_hands_over_the_fit(hybrid, data):
    model = UDE(Interruption(500), hybrid.terms["U"].network, states=("x", "y"))
    with pytest.raises(Interrupted, match="Nothing was saved") as caught:
        fit(model, data, strategy=SingleShooting(optimizers=SHORT))
    assert caught.value.checkpoint is None
    assert caught.value.fit.losses.isfinite().all()


def test_data_sets_with_other_times_are_refused(hybrid, data):
    other = problems.Trajectories(ts=data.ts + 1, ys=data.ys, states=data.states)
    with pytest.raises(ValueError, match="share their times"):
        fit(hybrid, [data, other], replicates=2)
