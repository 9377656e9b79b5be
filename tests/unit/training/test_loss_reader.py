"""Losses that are read some steps late, as on a GPU: same weights and figures, and no step of NaN moves a weight."""

import pytest
import torch

from tests.support.tiny import spec
from tests.unit.training.test_loop import STEPS, Batches, RootLoss, assert_equal, make_loop, weights
from unalike.errors import TrainingError
from unalike.training.loss_reader import LossReader, skip_unless_finite, skips_updates


def test_figures_come_in_their_order_each_once():
    reader = LossReader(2)
    for step in range(5):
        reader.put(
            torch.tensor(float(step)),
            torch.tensor(2.0) if step % 2 else None,
            epoch=1,
            step=step,
            indices=torch.arange(step),
        )
        taken = [(f.loss, f.norm, f.epoch, f.step, len(f.indices)) for f in reader.take()]
        assert taken == ([(step - 2.0, 2.0 * (step % 2), 1, step - 2, step - 2)] if step >= 2 else [])
    assert [f.step for f in reader.take(every=True)] == [3, 4] and reader.take(every=True) == []
    immediate = LossReader(0)
    immediate.put(torch.tensor(1.0), None, epoch=0, step=0, indices=torch.arange(1))
    assert [f.loss for f in immediate.take()] == [1.0]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_an_update_of_gradients_that_are_not_finite_moves_nothing(kind):
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = kind([parameter], lr=0.1, fused=True)
    assert skips_updates(optimizer) and not skips_updates(kind([parameter], lr=0.1))
    for gradient, moves in ((1.0, True), (float("nan"), False), (float("inf"), False), (1.0, True)):
        before = parameter.detach().clone()
        parameter.grad = torch.tensor([1.0, gradient, 1.0])
        skip_unless_finite(optimizer, torch.nn.utils.get_total_norm([parameter.grad]))
        optimizer.step()
        assert torch.equal(before, parameter.detach()) is not moves
        assert torch.isfinite(parameter).all()


def late_loop(folder, monkeypatch, s=None, **facts):
    """A loop as it is on a GPU: updates of one kernel, figures three steps late."""
    monkeypatch.setattr("unalike.training.optimizer.is_fused", lambda *_: True)
    folder.mkdir()
    loop = make_loop(folder, s, **facts)
    loop.reader = LossReader(3)
    return loop


@pytest.mark.parametrize("changes", [{}, {"train__accumulate": 2}, {"train__clip_grad_norm": 0.5}, {"train__optim__name": "SGD"},
                                     {"train__log_every": 100}])  # fmt: skip
def test_late_figures_are_the_same(tmp_path, monkeypatch, changes):
    late = late_loop(tmp_path / "late", monkeypatch, spec(train__num_epochs=3, **changes))
    late.run()
    (tmp_path / "at once").mkdir()
    at_once = make_loop(tmp_path / "at once", spec(train__num_epochs=3, **changes))
    at_once.run()
    assert at_once.reader.lag == 0 and late.reader.lag == 3
    assert_equal(weights(late), weights(at_once))
    assert late.history == at_once.history and late.epoch_loss == at_once.epoch_loss == 0.0


class OneOfNan(Batches):
    """The images of one step of the first epoch are not finite."""

    def epoch(self, epoch, start_step=0):
        for step, batch in enumerate(super().epoch(epoch, start_step), start_step):
            if (epoch, step) == (0, 1):
                batch.images_BCHW[:] = float("nan")
            yield batch


def test_a_step_that_is_not_finite_is_named_and_moves_nothing(tmp_path, monkeypatch):
    loop = late_loop(tmp_path / "a", monkeypatch, spec(train__log_every=100), batches=OneOfNan())
    seen = []
    step = loop.train_step

    def record(batch, update):
        before = {name: value.clone() for name, value in loop.embedder.named_parameters()}
        step(batch, update=update)
        after = dict(loop.embedder.named_parameters())
        seen.append(any(not torch.equal(before[name], after[name]) for name in before))
        assert all(torch.isfinite(value).all() for value in after.values())

    loop.train_step = record
    with pytest.raises(
        TrainingError, match=r"is nan in epoch 1, after 1 of its steps; .* did not move the weights.*image7\.png"
    ):
        loop.run()
    assert seen[:2] == [True, False] and STEPS > 2


def test_gradients_that_are_not_finite_are_named_late(tmp_path, monkeypatch):
    loop = late_loop(tmp_path / "a", monkeypatch)
    loop.criterion.miner, loop.criterion.loss = None, RootLoss()
    before = {name: value.clone() for name, value in loop.embedder.named_parameters()}
    with pytest.raises(TrainingError, match=r"gradient's norm is nan.*image7\.png"):
        loop.run()
    assert_equal(before, dict(loop.embedder.named_parameters()))
