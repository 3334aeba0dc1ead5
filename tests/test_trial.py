"""A detector of one's own is tried on two rows: each fault has its sentence, and a sound one is left as it was."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from straylight.callbacks.ranking import tell_turned
from straylight.data import Blobs
from straylight.detectors import VAE, FittedDetector
from straylight.detectors.base import Detector
from straylight.errors import StraylightError


class Mine(Detector):
    """Sound: the distance to a learned centre, with batch norm and dropout to be disturbed."""

    def __init__(self, shape, **common) -> None:
        super().__init__(shape, **common)
        self.net = nn.Sequential(nn.Linear(shape[0], 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, shape[0]))

    def loss(self, batch):
        return batch.mean(self.score(batch.x, batch.context))

    def score(self, x, context):
        return (x - self.net(x)).square().sum(1)


class Fitted(FittedDetector):
    def __init__(self, shape, **common) -> None:
        super().__init__(shape, **common)
        self.register_buffer("mean", torch.zeros(shape))

    def fit(self, x, context, weight):
        self.mean = x.mean(0)

    def score(self, x, context):
        return (x - self.mean).norm(dim=1)


def fit(detector, trainer, epochs: int = 1):
    torch.manual_seed(0)
    made = trainer(max_epochs=epochs)
    made.fit(detector, datamodule=Blobs(seed=0))
    return made


def alone(self, x, context):
    if len(x) == 1:
        raise IndexError("too many indices")
    return x.square().sum(1)


def broken(self, x, context):
    raise ValueError("shapes do not match.")


SCORES = {
    "column": (
        lambda self, x, c: x.square().sum(1, keepdim=True),
        r"shape \(2, 1\) for 2 events.*\(2,\): squeeze\(1\)",
    ),
    "scalar": (lambda self, x, c: x.square().sum(), r"shape \(\) for 2 events; wanted is .* shape \(2,\)"),
    "features": (lambda self, x, c: x.square(), r"shape \(2, 2\) for 2 events"),
    "squeezed": (lambda self, x, c: x.square().sum(1).squeeze(), r"shape \(\) for one event; .* \(1,\)"),
    "nan": (lambda self, x, c: x.sum(1) * float("nan"), "returned nan, nan for 2 events.*wanted are finite"),
    "infinite": (lambda self, x, c: x.sum(1) + float("inf"), "returned inf, inf for 2 events"),
    "whole numbers": (lambda self, x, c: x.sum(1).long(), "returned int64 for 2 events; wanted is a floating-point"),
    "bool": (lambda self, x, c: x.sum(1) > 0, "returned bool for 2 events"),
    "numpy": (lambda self, x, c: x.sum(1).detach().numpy(), "no tensor but ndarray for 2 events"),
    "list": (lambda self, x, c: x.sum(1).tolist(), "no tensor but list for 2 events"),
    "nothing": (lambda self, x, c: None, "no tensor but NoneType for 2 events"),
    "one row": (
        alone,
        r"fails for one event, as it must score any number.*IndexError: too many indices \(.*test_trial",
    ),
    "raises": (broken, r"fails for 2 events: ValueError: shapes do not match \(.*test_trial.py, line \d+\)\.$"),
}


@pytest.mark.parametrize("fault", SCORES)
@pytest.mark.parametrize("base", [Mine, Fitted])
def test_a_score_that_is_none_is_told_before_training_or_after_a_fit(base, fault, trainer) -> None:
    score, said = SCORES[fault]
    sound = {"loss": lambda self, batch: batch.mean(self.net(batch.x).square().sum(1))} if base is Mine else {}
    detector = type("Own", (base,), {"score": score, **sound})((2,))
    with pytest.raises(StraylightError, match=rf"(?s)^Own\.score .*{said}") as raised:
        fit(detector, trainer)
    assert "\n" not in str(raised.value)


LOSSES = {
    "each row's": (
        lambda self, b: self.score(b.x, b.context),
        r"returned a tensor of shape \(2,\); wanted is one number",
    ),
    "of a column": (lambda self, b: self.score(b.x, b.context).mean()[None], r"a tensor of shape \(1,\)"),
    "detached": (lambda self, b: self.score(b.x, b.context).mean().detach(), "returned a number without a gradient"),
    "new": (lambda self, b: torch.tensor(1.0), "returned a number without a gradient"),
    "of the data": (lambda self, b: b.x.clone().requires_grad_().sum(), "without a gradient to any parameter"),
    "a float": (lambda self, b: self.score(b.x, b.context).mean().item(), "no tensor but float; wanted is one number"),
    "nan": (lambda self, b: self.score(b.x, b.context).mean() * float("nan"), "returned nan for two training rows"),
    "whole": (lambda self, b: self.score(b.x, b.context).mean().long(), "returned int64"),
    "nothing": (lambda self, b: None, "no tensor but NoneType"),
    "names without it": (lambda self, b: {"kl": self.score(b.x, b.context).mean()}, "returned kl, and no 'loss'"),
    "a name of each row": (lambda self, b: {"loss": self.score(b.x, b.context)}, r"is a tensor of shape \(2,\)"),
    "raises": (lambda self, b: b.nothing, r"fails for 2 events: AttributeError: .*\(.*test_trial.py, line \d+\)"),
}


@pytest.mark.parametrize("fault", LOSSES)
def test_a_loss_that_is_none_is_told_before_training(fault, trainer) -> None:
    loss, said = LOSSES[fault]
    detector = type("Own", (Mine,), {"loss": loss})((2,))
    with pytest.raises(StraylightError, match=rf"^('loss' of )?Own\.loss .*{said}"):
        fit(detector, trainer)
    assert detector.net[1].num_batches_tracked == 0


def test_what_was_not_written_is_told(trainer) -> None:
    with pytest.raises(StraylightError, match=r"Half\.loss fails .* Half must write loss\(batch\)"):
        fit(type("Half", (Mine,), {"loss": Detector.loss})((2,)), trainer)
    with pytest.raises(StraylightError, match=r"Half\.score fails .* Half must write score\(x, context\)"):
        score = {"score": Detector.score, "loss": lambda self, b: self.net(b.x).mean()}
        fit(type("Half", (Mine,), score)((2,)), trainer)


def test_a_detector_with_nothing_to_train_is_told_what_it_is(trainer) -> None:
    class Norm(Detector):
        def loss(self, batch):
            return batch.x.mean()

        def score(self, x, context):
            return x.norm(dim=1)

    with pytest.raises(StraylightError, match=r"Norm has no parameter to train: .*FittedDetector"):
        fit(Norm((2,)), trainer)


def test_a_trial_leaves_all_as_it_was(trainer) -> None:
    """The weights, running statistics, gradients, modes, notices, and every random number that follows."""

    class Loud(Mine):
        def loss(self, batch):
            random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
            self.notice("a trial says nothing")
            self.log("own", 1.0)
            self.counted = getattr(self, "counted", 0) + 1
            return super().loss(batch)

    detector = Loud((2,))
    made = trainer(max_epochs=1)
    before, seen = {}, {}

    def state():
        parts = copy.deepcopy(detector.state_dict()), [m.training for m in detector.modules()]
        drawn = np.random.get_state()  # noqa: NPY002
        return *parts, torch.get_rng_state(), drawn[1].tolist(), drawn[2], random.getstate()

    hook = type(detector).on_train_start

    def watched():
        before["state"] = state()
        hook(detector)
        seen["state"] = state()
        made.should_stop = True
        raise KeyboardInterrupt

    detector.on_train_start = watched
    with pytest.raises(BaseException):  # noqa: B017  whatever Lightning makes of it
        made.fit(detector, datamodule=Blobs(seed=0))
    (old, *others), (new, *after) = before["state"], seen["state"]
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert others[0] == after[0] and torch.equal(others[1], after[1]) and others[2:] == after[2:]
    assert not detector.notices and not hasattr(detector, "counted")
    assert all(parameter.grad is None for parameter in detector.parameters())


def test_training_is_the_same_with_a_trial_and_without(trainer, monkeypatch) -> None:
    weights = []
    for tried in (True, False):
        if not tried:
            monkeypatch.setattr(Detector, "on_train_start", lambda self: None)
        torch.manual_seed(1)
        detector = VAE((2,), hidden=(4,), latent=2)
        fit(detector, trainer, epochs=2)
        weights.append(detector.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_detectors_that_cannot_be_copied_are_trained_all_the_same(trainer) -> None:
    detector = Mine((2,))
    detector.kept = (x for x in ())  # a generator, which nothing copies
    assert fit(detector, trainer).global_step > 0


def test_functions_given_to_one_object_are_not_tried(trainer) -> None:
    detector = Mine((2,))
    detector.loss = lambda batch: detector.net(batch.x).square().mean()  # of a copy it would train this one
    assert fit(detector, trainer).global_step > 0


# the sign of a score


class Said:
    def __init__(self) -> None:
        self.notices: list[str] = []
        self.notice = self.notices.append


LOW, WIDE = (0.0, 0.2), (0.0, 0.8)


@pytest.mark.parametrize(
    ("metrics", "intervals", "said"),
    [
        ({"auroc": 0.05}, {"auroc": LOW}, "AUROC is 0.05: nearly all anomalies score lower than nominal rows"),
        ({"auroc": 0.05}, {"auroc": WIDE}, None),  # of a few rows, by chance
        ({"auroc": 0.05}, {}, None),
        ({"auroc": 0.2}, {"auroc": LOW}, None),
        ({"auroc": 0.9, "auroc/far": 0.03}, {"auroc/far": LOW}, "AUROC is 0.03: nearly all anomalies of far score"),
        (
            {"auroc": 0.5, "auroc/a": 0.03, "auroc/b": 0.06},
            {"auroc/a": LOW, "auroc/b": LOW},
            "AUROC is 0.06 or less: nearly all anomalies of a, b score",
        ),
        (
            {"auroc": 0.02, "auroc/a": 0.03, "auroc/b": 0.9},
            {"auroc": LOW, "auroc/a": LOW},
            "AUROC is 0.02: nearly all anomalies score",
        ),
        ({"ap": 0.01}, {"ap": LOW}, None),
    ],
)
def test_a_score_that_points_the_other_way_is_hinted_at(metrics, intervals, said) -> None:
    module = Said()
    tell_turned(module, metrics, intervals)
    assert len(module.notices) == bool(said)
    assert all(said in notice and "is the sign of Said.score right?" in notice for notice in module.notices)


def test_the_hint_is_in_the_record_once(straylight_train, tmp_path, monkeypatch) -> None:
    (tmp_path / "upside.py").write_text(
        "from straylight.detectors import KNN\n"
        "class Upside(KNN):\n"
        "    def score(self, x, context):\n"
        "        return -super().score(x, context)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    ended = straylight_train("detector=knn", "data=blobs", "detector._target_=upside.Upside")
    assert ended.status == 0, ended.err
    (notice,) = [notice for notice in ended.result["notices"] if "AUROC" in notice]
    assert "sign of Upside.score" in notice and (ended.out + ended.err).count("sign of Upside.score") == 1
