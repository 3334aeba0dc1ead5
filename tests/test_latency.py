"""Latency with a planted clock, costs by hand, and who else is on the device by injected readings."""

from __future__ import annotations

import itertools
import os
import time
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from given import layers_of
from straylight.callbacks import Latency, Record, cost, sharing, timing
from straylight.callbacks.cost import energy, flops, peak_memory, size
from straylight.callbacks.sharing import Card, busy
from straylight.callbacks.timing import Timing
from straylight.data import Blobs
from straylight.detectors import VAE, AnoGAN, AutoEncoder, Detector
from straylight.metrics.cost import Busy, cores_of_others, joules_per_million
from straylight.rows.batch import Splits
from test_doors import Rows, build, none, rows

FIELDS = {"p50_us", "p95_us", "p99_us", "mean_us", "events_per_s", "repeats"}


class Clock:
    """Moves when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Sleeping(Detector):
    """Takes a planted time for scaling, and for each batch and each event of a score."""

    def __init__(self, clock, batch=0.005, event=0.0, scale=0.0, **common) -> None:
        super().__init__((2,), **common)
        self.clock, self.batch, self.event, self.seen = clock, batch, event, []
        inner = self.scaling.forward

        def slow(x):
            clock.now += scale
            return inner(x)

        self.scaling = Slow(self.scaling, slow)

    def score(self, x, context):
        self.seen.append(len(x))
        self.clock.now += self.batch + self.event * len(x)
        return x.sum(1)


class Slow(nn.Module):
    method = "standard"

    def __init__(self, inner, slow) -> None:
        super().__init__()
        self.inner, self.slow = inner, slow

    def forward(self, x):
        return self.slow(x)


def quiet() -> Busy:
    return Busy(0.0, 0.0, 0.0)


def timed(detector, *, context=0, n=10, **options):
    options = {"batches": [1, 4], "runtimes": ["eager"], "budget_s": 0.1, "longest_s": 5.0, "reader": quiet} | options
    x = torch.randn(n, *detector.shape)
    return Timing(**options)(detector.eval(), x, torch.zeros(n, context))


def test_a_planted_sleep_is_recovered() -> None:
    clock = Clock()
    entries, _ = timed(Sleeping(clock), clock=clock)
    scaled, unscaled = [e for e in entries if e["scaling"]], [e for e in entries if not e["scaling"]]
    assert [e["batch"] for e in scaled] == [e["batch"] for e in unscaled] == [1, 4]
    for entry in entries:
        assert FIELDS | {"runtime", "batch", "scaling", "device"} == set(entry)
        assert entry["runtime"] == "eager" and entry["device"] == "cpu"
        for name in ("p50_us", "p95_us", "mean_us"):
            assert entry[name] == pytest.approx(5000, rel=1e-9)
        assert entry["p99_us"] is None  # of so few repeats
        assert entry["events_per_s"] == pytest.approx(entry["batch"] / 0.005)
        assert entry["repeats"] in (20, 21)  # sums of the budget round


def test_the_first_entry_is_the_one_that_leaderboards_compare() -> None:
    entries, _ = timed(AutoEncoder((2,), hidden=[4], latent=1), runtimes=["onnx", "eager"], budget_s=0.001)
    assert (entries[0]["runtime"], entries[0]["batch"], entries[0]["scaling"]) == ("eager", 1, True)
    assert [e["runtime"] for e in entries if e["batch"] == 1] == ["eager", "eager", "onnx"]


def test_scaling_is_left_out_where_it_is_said_to_be() -> None:
    clock = Clock()
    detector = Sleeping(clock, scale=0.003)
    entries, _ = timed(detector, clock=clock, batches=[1])
    with_it, without = entries
    assert (with_it["scaling"], without["scaling"]) == (True, False)
    assert with_it["p50_us"] == pytest.approx(8000) and without["p50_us"] == pytest.approx(5000)
    before = clock.now
    detector(torch.zeros(1, 2))  # and is back afterwards
    assert clock.now - before == pytest.approx(0.008)


def test_a_detector_that_scales_nothing_is_timed_once() -> None:
    entries, _ = timed(AutoEncoder((2,), hidden=[4], latent=1, scaling="none"), budget_s=0.001)
    assert [e["scaling"] for e in entries] == [True, True]


def test_events_are_scored_in_the_parts_of_a_test_and_repeated() -> None:
    clock = Clock()
    detector = Sleeping(clock, batch=0.0, event=0.001)
    detector.rows_at_once = 8
    entries, _ = timed(detector, clock=clock, batches=[20], n=3)
    assert entries[0]["p50_us"] == pytest.approx(20_000) and set(detector.seen) == {8, 4, 3}  # 3: what FLOPs are of


def test_a_batch_that_would_take_too_long_is_left_out_and_said() -> None:
    clock = Clock()
    detector = Sleeping(clock, batch=0.0, event=0.01)
    entries, found = timed(detector, clock=clock, batches=[1, 32, 64, 1024], longest_s=1.0)
    assert [e["batch"] for e in entries if e["scaling"]] == [1, 32, 64]
    assert 1024 not in detector.seen
    (said,) = found["remarks"]
    assert said == "eager: batch 1024 is left out, it would take some 10 s a call (callbacks.latency.longest_s=1)."
    # beside a call of more than ten budgets, scaling is nothing
    entries, _ = timed(Sleeping(clock, event=0.5), clock=clock, batches=[1, 4], budget_s=0.1)
    assert [(e["batch"], e["scaling"]) for e in entries] == [(1, True), (4, True), (1, False)]


def test_one_event_says_little_of_what_a_few_will_take() -> None:
    clock = Clock()
    entries, found = timed(Sleeping(clock, batch=0.5), clock=clock, batches=[1, 32, 64], longest_s=1.0)
    assert [e["batch"] for e in entries if e["scaling"]] == [1, 32, 64] and not found["remarks"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batches": []}, "callbacks.latency.batches"),
        ({"batches": [0]}, "callbacks.latency.batches"),
        ({"runtimes": ["onnx"]}, r"must hold eager.*not \['onnx'\]"),
        ({"runtimes": ["eager", "tpu"]}, "not 'tpu'"),
        ({"budget_s": 0}, "budget_s"),
        ({"longest_s": -1}, "longest_s"),
    ],
)
def test_values_that_cannot_be_used_are_refused(options, said) -> None:
    with pytest.raises(ValueError, match=said):
        Latency(**options)


# ONNX


def test_onnx_runtime_is_timed_where_the_detector_exports() -> None:
    detector = build("maf", (3,), 2, ["detector.layers=1"])
    entries, found = timed(detector, context=2, runtimes=["eager", "onnx"], batches=[1, 64], budget_s=0.001)
    assert [(e["batch"], e["device"]) for e in entries if e["runtime"] == "onnx"] == [(1, "cpu"), (64, "cpu")]
    assert found["onnx"].startswith("ONNX Runtime ") and not found["remarks"]


def test_a_detector_without_a_graph_leaves_a_reason() -> None:
    gan = AnoGAN((2,), latent=2, generator=[4], discriminator=[4])
    entries, found = timed(gan, runtimes=["eager", "onnx"], batches=[1], budget_s=0.001)
    assert {e["runtime"] for e in entries} == {"eager"}
    assert found["onnx"].startswith("AnoGAN cannot be exported to ONNX: its score takes more than 5,000 operations")


@pytest.mark.parametrize("part", ["compared", "run"])
def test_a_failing_export_never_fails_a_run(part, monkeypatch) -> None:
    def fails(*arguments, **options):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(timing, part, fails)
    detector = AutoEncoder((2,), hidden=[4], latent=1)
    entries, found = timed(detector, runtimes=["eager", "onnx"], budget_s=0.001)
    assert [e["runtime"] for e in entries] == ["eager"] * 4
    assert found["onnx"] == "left out: RuntimeError: out of luck"


def test_sizes_beyond_what_a_graph_is_good_for_are_left_out() -> None:
    kde = build("kde", (2,))
    kde.budget_mb = 0.1
    kde.fit(torch.randn(100, 2), torch.zeros(100, 0), torch.ones(100))
    entries, found = timed(kde, runtimes=["eager", "onnx"], batches=[1, 1024], budget_s=0.001)
    assert [e["batch"] for e in entries if e["runtime"] == "onnx"] == [1]
    assert len(found["remarks"]) == 1 and found["remarks"][0].startswith("onnx: batch 1024 is left out")


# compile


def test_networks_are_compiled_on_request_and_left_as_they_were(monkeypatch) -> None:
    monkeypatch.setattr(nn.Module, "compile", lambda self: setattr(self, "_compiled_call_impl", self._call_impl))
    detector = AutoEncoder((2,), hidden=[4], latent=1)
    entries, _ = timed(detector, runtimes=["eager", "compile"], batches=[1], budget_s=0.001)
    assert [(e["runtime"], e["scaling"]) for e in entries] == [("eager", True), ("eager", False), ("compiled", True)]
    assert not detector.compiled and all(m._compiled_call_impl is None for m in detector.modules())
    detector.compile_networks()
    calls = [m._compiled_call_impl for m in detector.modules()]
    entries, _ = timed(detector, runtimes=["eager", "compile"], batches=[1], budget_s=0.001)
    assert [(e["runtime"], e["scaling"]) for e in entries] == [("compiled", True), ("compiled", False)]
    assert detector.compiled and [m._compiled_call_impl for m in detector.modules()] == calls


@pytest.mark.parametrize("fault", ["none", "rounding", "another order", "infinite"])
def test_compiled_networks_that_score_otherwise_are_timed_and_say_so(monkeypatch, fault) -> None:
    wrong = {
        "none": lambda out: out,
        "rounding": lambda out: out * (1 + 1e-7),
        "another order": lambda out: -3 * out,
        "infinite": lambda out: out / 0,
    }[fault]
    monkeypatch.setattr(
        nn.Module, "compile", lambda self: setattr(self, "_compiled_call_impl", lambda *a: wrong(self._call_impl(*a)))
    )
    torch.manual_seed(0)
    detector = AutoEncoder((2,), hidden=[4], latent=1)
    entries, found = timed(detector, runtimes=["eager", "compile"], batches=[1, 32], budget_s=0.001)
    compiled = [entry for entry in entries if entry["runtime"] == "compiled"]
    alike = fault in ("none", "rounding")
    assert [entry.get("agrees", True) for entry in compiled] == [alike, alike]
    assert ("compiled: its scores are not those of eager torch." in found["remarks"]) is not alike


def test_what_has_no_network_is_not_compiled() -> None:
    pca = build("pca", (3,))
    pca.fit(torch.randn(30, 3), torch.zeros(30, 0), torch.ones(30))
    entries, found = timed(pca, runtimes=["eager", "compile"], batches=[1], budget_s=0.001)
    assert {e["runtime"] for e in entries} == {"eager"}
    assert found["remarks"] == ["compiled: left out, the detector has no network to compile."]


# cost


def test_flops_of_an_autoencoder_are_those_of_its_two_products() -> None:
    detector = AutoEncoder((57,), hidden=[], latent=8).eval()
    assert flops(detector, torch.randn(10, 57), torch.zeros(10, 0)) == 2 * 57 * 8 + 2 * 8 * 57
    with torch.inference_mode():  # as in the callback
        _, found = timed(detector, n=100, batches=[1], budget_s=0.001)
    assert found["flops_per_event"] == 2 * 57 * 8 * 2


def test_flops_of_a_convolution_by_hand() -> None:
    network = nn.Conv2d(2, 3, 5, bias=False)
    image = torch.randn(4, 2, 9, 9)
    assert flops(lambda x, context: network(x).sum((1, 2, 3)), image, image[:, :0]) == 2 * 3 * 5 * 5 * (2 * 5 * 5)


def test_flops_are_not_guessed_where_the_score_leaves_torch() -> None:
    factor = build("local_outlier_factor", (3,))
    factor.fit(torch.randn(300, 3), torch.zeros(300, 0), torch.ones(300))
    _, found = timed(factor, batches=[1], budget_s=0.001)
    assert found["flops_per_event"] is None
    assert found["remarks"] == ["flops_per_event: not counted, the score leaves torch."]


def test_size_is_that_of_all_that_scoring_needs() -> None:
    detector = AutoEncoder((5,), hidden=[], latent=2)
    weights = 5 * 2 + 2 + 2 * 5 + 5
    assert size(detector)["parameters"] == weights
    least = 4 * (weights + 2 * 5) + 1  # and shift, factor and a flag of the scaling
    assert size(detector)["state_bytes"] == least
    factor = build("local_outlier_factor", (3,))
    unfitted = size(factor)["state_bytes"]
    factor.fit(torch.randn(300, 3), torch.zeros(300, 0), torch.ones(300))
    # a row, the square of its length, and two numbers more; centre and reach turn to double precision
    assert size(factor)["state_bytes"] == unfitted + 300 * 8 * (3 + 1 + 2) + 4 * (3 + 1)
    shared = nn.Sequential(one := nn.Linear(3, 3, bias=False), one)
    assert size(shared) == {"parameters": 9, "state_bytes": 36}


def test_layers_have_the_shapes_that_they_give_of_one_event() -> None:
    network = VAE((1, 8, 8), channels=[4], hidden=[6], latent=2, likelihood="bernoulli", scaling="minmax_common").eval()
    found = {one["name"]: one for one in layers_of(network, torch.rand(1, 1, 8, 8), torch.zeros(1, 0))}
    assert found["encoder.0"] == {"name": "encoder.0", "layer": "Conv2d", "shape": [4, 4, 4], "parameters": 4 * 9 + 4}
    assert found["encoder.3"] == {"name": "encoder.3", "layer": "Linear", "shape": [6], "parameters": 6 * (64 + 1)}


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = nn.Linear(3, 3, bias=False)
        self.shift = nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return (self.second(self.first(x)) + self.shift).sum(1)


def test_parameters_are_counted_once_and_those_of_the_detector_itself_are_there() -> None:
    found = layers_of(Twice(), torch.ones(1, 3), torch.ones(1, 0))
    assert [(one["name"], one["parameters"]) for one in found] == [("", 3), ("first", 9)]


def test_a_part_that_scoring_does_not_call_has_no_shape() -> None:
    gan = AnoGAN((3,), latent=2, generator=[4], discriminator=[5], steps=1).eval()
    found = {one["name"]: one["shape"] for one in layers_of(gan, torch.rand(1, 3), torch.zeros(1, 0))}
    assert found["generator.0"] == [4] and found["features.1"] == [5]
    assert found["head"] is None, "the discriminator's last layer, which no score asks"


class Failing(AutoEncoder):
    def score(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no score")


def test_a_score_that_fails_leaves_no_hook(trainer, tmp_path) -> None:
    network = Failing((2,), latent=1)
    with pytest.raises(RuntimeError, match="no score"):
        trainer(callbacks=[Record(tmp_path)]).test(network, datamodule=Blobs(seed=0), verbose=False)
    assert not any(part._forward_hooks for part in network.modules())


def test_peak_memory_is_a_matter_of_cuda() -> None:
    assert peak_memory(lambda: pytest.fail("called"), torch.device("cpu")) is None


# who else is on the device


def test_cores_of_others_by_hand() -> None:
    assert cores_of_others(Busy(10, 500, 100), Busy(12, 504, 101)) == 1.5
    assert cores_of_others(Busy(0, 0, 0), Busy(1, 0.5, 1.0)) == 0  # rounding of the counters
    assert cores_of_others(Busy(0, 0, 0), Busy(0.01, 0.02, 0.0)) == 0  # a tick or two mean nothing
    assert cores_of_others(Busy(1, 0, 0), Busy(1, 9, 0)) == 0
    assert joules_per_million(500.0, 1500.0, 1000) == 1000.0


@pytest.mark.parametrize(("used", "others"), [(0.2, False), (0.3, True)])
def test_the_record_says_when_others_use_the_processor(used, others) -> None:
    readings = iter([Busy(0, 0, 0), Busy(10, 10 * (1 + used), 10)])
    _, found = timed(AutoEncoder((2,), hidden=[], latent=1), budget_s=0.001, reader=lambda: next(readings))
    assert found["shared"] == {"others": others, "cpu_cores": used}


def test_what_this_process_and_its_children_use_is_not_others() -> None:
    before = busy()
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    after = busy()
    assert after.ours - before.ours >= 0.08 and after.everyone > before.everyone and after.clock > before.clock


class NVML:
    """A card with some processes on it and a counter of millijoules."""

    class NVMLError(Exception):
        pass

    def __init__(self, pids=(), energies=()) -> None:
        self.pids, self.energies, self.started = pids, iter(energies), False

    def nvmlInit(self):
        self.started = True

    def nvmlDeviceGetHandleByUUID(self, uuid):
        assert self.started
        return uuid

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        if self.pids is None:
            raise self.NVMLError
        return [SimpleNamespace(pid=pid) for pid in self.pids]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        try:
            return next(self.energies)
        except StopIteration:
            raise self.NVMLError from None


@pytest.mark.parametrize(
    ("pids", "others"),
    [
        ((), 0),
        ((os.getpid(),), 0),
        ((os.getpid(), 1), 1),
        ((-7,), 0),  # ours, by the number it has outside the container
        ((-7, -8), 1),
        (None, None),
    ],
)
def test_processes_of_others_on_a_card(pids, others) -> None:
    card = Card(NVML(pids), "GPU-0")
    assert card.others() == others
    found: dict = {}
    with sharing.sharing(found, card, reader=quiet):
        pass
    assert found == {"others": bool(others), "cpu_cores": 0.0} | ({} if others is None else {"gpu_processes": others})


class Ticking:
    """A card that takes 300 W and counts them in ticks, so many seconds long."""

    def __init__(self, clock, tick, watts=300.0) -> None:
        self.clock, self.tick, self.watts = clock, tick, watts

    def energy_mj(self):
        self.clock.now += 1e-3  # that a reading takes
        return 1e3 * self.watts * self.tick * int(self.clock.now / self.tick + 1e-9)


@pytest.mark.parametrize("tick", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("took", [1e-3, 0.037, 0.7])
def test_energy_is_counted_over_ten_ticks_or_more(tick, took) -> None:
    clock = Clock()
    calls = []

    def call():
        calls.append(clock.now)
        clock.now += took

    found = energy(call, 500, Ticking(clock, tick), seconds=0.05, clock=clock)
    lasted = calls[-1] + took - calls[1]
    assert lasted >= 10 * tick * 0.9
    assert found == pytest.approx(300 * took / 500 * 1e6, rel=0.12)  # to a tick of ten, and the readings


def test_energy_that_is_not_counted_is_not_given() -> None:
    clock = Clock()
    assert energy(lambda: None, 500, Card(NVML(), "GPU-0"), clock=clock) is None
    assert energy(lambda: None, 500, Ticking(clock, 1.0), clock=clock) is None  # too slowly
    assert energy(lambda: None, 500, Ticking(clock, 0.1, watts=0.0), clock=clock) is None


def test_costs_of_a_card_are_recorded_where_there_is_one(monkeypatch) -> None:
    card = Card(NVML([os.getpid(), 1], energies=itertools.count(0, 1000)), "GPU-0")
    monkeypatch.setattr(timing, "energy", partial(energy, seconds=0.001))
    monkeypatch.setattr(timing, "card", lambda device: card)
    monkeypatch.setattr(timing, "peak_memory", lambda call, device: 12345)
    monkeypatch.setattr(cost, "joules_per_million", lambda before, after, events: (after - before) / 1000)
    _, found = timed(AutoEncoder((2,), hidden=[], latent=1), batches=[1], budget_s=0.001)
    assert found["energy_j_per_million_events"] >= 1.0 and found["peak_device_memory_bytes"] == 12345
    assert found["shared"]["others"] and found["shared"]["gpu_processes"] == 1


def test_there_is_no_card_behind_a_processor() -> None:
    assert sharing.card(torch.device("cpu")) is None


# the callback


def test_the_callback_times_the_tested_detector_with_test_rows(trainer, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(Timing, "__call__", lambda self, *given: seen.append(given) or ([{"batch": 1}], {"a": 1}))
    data = Rows(Splits(rows(20, (2,)), none((2,)), test := rows(30, (2,), 1), none((2,))), eval_batch_size=8)
    detector, latency = AutoEncoder((2,), hidden=[4], latent=1), Latency(batches=[1, 5])
    runner = trainer(max_epochs=1, callbacks=[latency])
    runner.fit(detector, datamodule=data)
    runner.test(detector, datamodule=data, verbose=False)
    ((timed_detector, x, context, precision),) = seen
    assert timed_detector is detector and torch.equal(x, test.x[:5]) and context.shape == (5, 0)
    assert precision == runner.precision_plugin.forward_context
    assert latency.result() == {"latency": [{"batch": 1}], "cost": {"a": 1}}


def test_all_of_it_after_a_real_test(trainer) -> None:
    data = Rows(Splits(rows(50, (2,)), none((2,)), rows(30, (2,), 1), none((2,))))
    detector, latency = AutoEncoder((2,), hidden=[4], latent=1), Latency(batches=[1, 64], budget_s=0.01)
    runner = trainer(max_epochs=1, callbacks=[latency])
    runner.fit(detector, datamodule=data)
    runner.test(detector, datamodule=data, verbose=False)
    found = latency.result()
    assert [(e["runtime"], e["batch"], e["scaling"]) for e in found["latency"]] == [
        ("eager", 1, True),
        ("eager", 64, True),
        ("eager", 1, False),
        ("eager", 64, False),
        ("onnx", 1, True),
        ("onnx", 64, True),
    ]
    assert all(0 < e["p50_us"] <= (e["p99_us"] or e["p50_us"]) for e in found["latency"])
    assert set(found["cost"]) == {"parameters", "state_bytes", "flops_per_event", "onnx", "shared", "remarks"}
    assert found["cost"]["flops_per_event"] == 2 * (2 * 4 + 4 * 1 + 1 * 4 + 4 * 2)
    assert set(found["cost"]["shared"]) == {"others", "cpu_cores"}
