"""What is said and logged while training: a line per epoch, the learning rate and the gradient's norm."""

import io
import itertools

import pytest
import torch

from straylight.callbacks import Checkpoint, Descent, EarlyStopping, Progress
from straylight.callbacks.progress import _duration
from straylight.detectors import AAE, KNN, AutoEncoder
from straylight.errors import ConfigError
from straylight.nn import Optimization
from straylight.phases import CLEAR


class Terminal(io.StringIO):
    def isatty(self):
        return True


def rows(n=256):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(1))


def told(trainer, serving, *, file, epochs=3, detector=None, **options):
    """The lines of a training whose clock goes on by one second at each look, as they stood one after the other."""
    ticks = itertools.count()
    progress = Progress(clock=lambda: next(ticks), file=file, **options)
    fit = trainer(max_epochs=epochs, callbacks=[progress])
    data = serving(rows(), rows(64), batch_size=32, group=4)
    fit.fit(detector or AutoEncoder((4,), latent=2), datamodule=data)
    lines = file.getvalue().replace(CLEAR, "\n").splitlines()
    return [line for line in lines if line.startswith(("epoch", "fitting"))], fit


def test_every_epoch_is_a_line_with_its_own_losses(trainer, serving):
    lines, fit = told(trainer, serving, file=Terminal())
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    last = (
        f"loss {fit.callback_metrics['train/loss'].item():.4g}  val/loss {fit.callback_metrics['val/loss'].item():.4g}"
    )
    assert last in lines[-1] and all("  loss " in line and "  val/loss " in line for line in lines)
    assert len({line.split("  ")[1] for line in lines}) == 3


def test_events_per_second_and_the_time_left_are_those_of_the_clock(trainer, serving):
    # looks: training's start, the epoch's start (twice), two groups, its end: 256 events in 2 s, a third done in 5 s
    lines, _ = told(trainer, serving, file=Terminal())
    assert lines[0].endswith("128 events/s  10 s left") and "left" not in lines[-1]


def test_lines_come_no_faster_than_wanted_but_for_the_last(trainer, serving):
    lines, _ = told(trainer, serving, file=Terminal(), epochs=6, interval_s=8)
    assert [line.split()[1] for line in lines] == ["2/6", "4/6", "6/6"]


def test_where_there_is_no_terminal_epochs_come_at_another_pace_and_the_last_always(trainer, serving):
    assert [line.split("  ")[0] for line in told(trainer, serving, file=io.StringIO())[0]] == ["epoch 3/3"]
    assert len(told(trainer, serving, file=io.StringIO(), log_interval_s=5)[0]) == 2


def test_where_there_is_no_terminal_every_phase_is_a_line_and_the_last_epoch_stays_in_one(trainer, serving):
    file = io.StringIO()
    told(trainer, serving, file=file)
    assert [line.split("  ")[0] for line in file.getvalue().splitlines()] == ["training AutoEncoder", "epoch 3/3"]
    screen = Terminal()
    told(trainer, serving, file=screen)
    assert screen.getvalue().rpartition(CLEAR)[2].startswith("epoch 3/3  loss") and screen.getvalue().endswith("\n")


def test_of_a_detector_fitted_in_one_pass_it_is_said_to_how_many_rows_and_how_fast_they_come(trainer, serving):
    lines, _ = told(trainer, serving, file=Terminal(), epochs=1, detector=KNN((4,)))
    assert lines[0] == "fitting KNN to 256 rows" and "256 rows" in lines[-1] and lines[-1].endswith(" events/s")
    assert told(trainer, serving, file=io.StringIO(), epochs=1, detector=KNN((4,)))[0] == ["fitting KNN to 256 rows"]


@pytest.mark.parametrize("seconds, said", [(7.6, "8 s"), (59.4, "59 s"), (185, "3:05"), (7385, "2:03:05")])
def test_durations_are_read_at_a_glance(seconds, said):
    assert _duration(seconds) == said


# descent


class Remember(Descent):
    def __init__(self):
        super().__init__()
        self.logged = []

    def on_train_start(self, *args):
        self.log_dict = lambda found, **options: self.logged.append(found)  # instead of the module's


class Steps(AutoEncoder):
    """Keeps every step's gradient norm, as it was before clipping."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.norms = []

    def descend(self, optimizer):
        gradients = [p.grad.flatten() for p in self.parameters()]
        self.norms.append(torch.cat(gradients).norm().item())
        super().descend(optimizer)


@pytest.mark.parametrize("clip", [None, 0.1])
def test_the_norm_is_the_mean_over_the_groups_last_steps_before_clipping(trainer, serving, clip):
    descent, detector = Remember(), Steps((4,), latent=2, optimizer=Optimization(lr=1e-2, clip=clip))
    trainer(max_epochs=2, callbacks=[descent]).fit(detector, datamodule=serving(rows(), batch_size=32, group=4))
    assert len(detector.norms) == 16 and min(detector.norms) > 0.1
    expected = [(detector.norms[i + 3] + detector.norms[i + 7]) / 2 for i in (0, 8)]
    assert [one["train/grad_norm"] for one in descent.logged] == pytest.approx(expected, rel=1e-5)


def test_the_learning_rate_is_that_of_the_schedule(trainer, serving):
    recipe = Optimization(lr=1e-2, schedule="linear")
    descent = Remember()
    fit = trainer(max_epochs=2, callbacks=[descent])
    fit.fit(AutoEncoder((4,), latent=2, optimizer=recipe), datamodule=serving(rows(), batch_size=32))
    assert [one["train/lr"] for one in descent.logged] == pytest.approx([recipe.rate(7, 16), recipe.rate(15, 16)])


def test_both_reach_the_trainers_metrics_and_change_no_weight(trainer, serving):
    def weights(*callbacks):
        torch.manual_seed(3)
        detector = AutoEncoder((4,), latent=2)
        fit = trainer(max_epochs=2, callbacks=list(callbacks))
        fit.fit(detector, datamodule=serving(rows(), rows(64), batch_size=32))
        return detector.state_dict(), fit.callback_metrics

    with_both, metrics = weights(Descent(), Progress(file=Terminal()))
    without, _ = weights()
    assert {"train/lr", "train/grad_norm"} <= set(metrics)
    assert all(torch.equal(with_both[name], without[name]) for name in without)


def test_networks_in_turns_and_detectors_without_a_gradient_are_no_trouble(trainer, serving):
    for detector, logged in ((AAE((4,), latent=2), 1), (KNN((4,)), 0)):
        descent = Remember()
        trainer(max_epochs=1, callbacks=[descent]).fit(detector, datamodule=serving(rows(), batch_size=32))
        assert len(descent.logged) == logged


# selection


@pytest.mark.parametrize("monitor", ["test/auroc", "test/loss"])
def test_nothing_selects_by_the_test_rows(tmp_path, monitor):
    with pytest.raises(ConfigError, match=f"callbacks.checkpoint.monitor={monitor} would select by the test rows"):
        Checkpoint(tmp_path, monitor)
    with pytest.raises(ConfigError, match=f"callbacks.early_stopping.monitor={monitor} would select by the test rows"):
        EarlyStopping(monitor)


def test_epochs_before_the_last_phase_are_not_compared(tmp_path, trainer, serving):
    class TwoPhases(AutoEncoder):
        last_phase = property(lambda self: self.current_epoch >= 2)

    checkpoint = Checkpoint(tmp_path, monitor="train/loss")
    fit = trainer(max_epochs=4, callbacks=[checkpoint])
    fit.fit(TwoPhases((4,), latent=2, optimizer=Optimization(lr=1e-9)), datamodule=serving(rows(), rows(64)))
    assert checkpoint.best_epoch >= 2
