"""`study` ends with the scores of the command, and its figures and comparisons are those of a run."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure

from straylight.callbacks import Gallery, Latency, Thresholds
from straylight.data import Blobs, Bump, Digits
from straylight.detectors import KNN, PCA, VAE, CWoLa, FAnoGAN
from straylight.errors import DataError, StraylightError
from straylight.study import Comparison, study


@pytest.fixture(scope="module")
def vae():
    data = Blobs(seed=0)
    pl.seed_everything(0, verbose=False)
    return study(VAE(data.shape, hidden=[32, 32], latent=2), data, epochs=8)


def test_losses_of_a_phase_end_with_it() -> None:
    data = Blobs(seed=0)
    gan = FAnoGAN(data.shape, latent=2, generator=[8], discriminator=[8], phases={"gan": 2, "encoder": 3})
    losses = study(gan, data, epochs=5).material.losses
    epochs = {name: [epoch for epoch, _ in pairs] for name, pairs in losses.items()}
    assert epochs["train/critic"] == epochs["train/diversity"] == [1, 2]
    assert epochs["train/loss"] == epochs["val/loss"] == [3, 4, 5]


def test_a_study_ends_with_the_scores_of_the_command(vae, straylight_train) -> None:
    ended = straylight_train("experiment=vae_blobs", epochs=8)
    import pyarrow.parquet as pq

    table = pq.read_table(ended.run / "scores.parquet")
    np.testing.assert_array_equal(vae.scores, table["score"].to_numpy())
    np.testing.assert_array_equal(vae.y, table["y"].to_numpy())
    for name in ("test/auroc", "test/ap", "test/tpr@fpr=0.1"):
        assert vae.result["metrics"][name] == ended.result["metrics"][name]
    assert [t["value"] for t in vae.result["thresholds"]] == [t["value"] for t in ended.result["thresholds"]]
    assert vae.result["parameters"] == ended.result["parameters"] and vae.result["epochs"] == 8
    assert vae.result["layers"] == ended.result["layers"] != []


def test_what_a_study_holds(vae) -> None:
    assert vae.kinds == ("nominal", "anomaly") and vae.x.shape == (len(vae.y), 2)
    assert vae.metric("auroc") == vae.result["metrics"]["test/auroc"]
    assert {entry["batch"] for entry in vae.result["latency"]} == {1, 1024}
    with torch.no_grad():
        np.testing.assert_allclose(vae.detector(vae.x).numpy(), vae.scores, rtol=1e-5)
    assert not vae.detector.training
    with pytest.raises(KeyError, match="there is no metric 'accuracy', but nominal"):
        vae.metric("accuracy")


def test_the_summary_of_a_study_is_its_network(vae) -> None:
    lines = [line.split() for line in vae.summary().splitlines()]
    assert lines[0] == ["network", "layer", "shape", "parameters"]
    assert ["encoder.0", "Linear", "32", "96"] in lines and ["decoder.4", "Linear", "2", "66"] in lines
    assert lines[-1][:2] == [f"{vae.result['parameters']:,}", "parameters:"]
    data = Blobs(seed=0)
    assert study(KNN(data.shape), data).summary() == "KNN has no parameters."


def test_what_a_study_knows_of_its_rows_and_codes() -> None:
    data = Digits(seed=0, batch_size=64)
    found = study(KNN(data.shape), data)
    assert [found.kinds[k] for k in found.y[found.y > 0]] == [str(d) for d in found.meta["digit"][found.y > 0]]


def test_codes_of_a_study_and_what_they_stand_for(vae) -> None:
    assert vae.codes.shape == (len(vae.y), 2)
    with torch.no_grad():
        x = vae.detector.scaling(vae.x)
        np.testing.assert_allclose(vae.codes, vae.detector.code(x).numpy(), rtol=1e-5, atol=1e-6)
        back = vae.detector.scaling.inverse(vae.detector.reconstruct(x)).numpy()
    np.testing.assert_allclose(vae.decode(vae.codes), back, rtol=1e-4, atol=1e-4)
    assert vae.decode([[0.0, 1.0]]).shape == (1, 2)


def test_figures_of_a_study(vae) -> None:
    for name in ("losses", "scores", "roc", "plane", "latent_2d", "manifold", "reconstructions"):
        assert isinstance(vae.draw(name), Figure), name
    assert len(vae.material.losses["val/loss"]) == 8
    with pytest.raises(ValueError, match="there is no figure 'picture', but data, particles"):
        vae.draw("picture")
    with pytest.raises(ValueError, match=r"the figure particles does not apply to a run of VAE on \(2,\)"):
        vae.draw("particles")
    with pytest.raises(ValueError, match=r"call trainer.test\(detector, data\) first"):
        Gallery().draw("roc")


def test_callbacks_of_ones_own_take_the_place_of_their_like() -> None:
    data = Blobs(seed=0)
    rate = Thresholds(input_hz=1000, accept_hz=10)
    found = study(PCA(data.shape), data, callbacks=[Latency((7,), ("eager",), 0.01), rate])
    assert {entry["batch"] for entry in found.result["latency"]} == {7}
    assert "rate" in {t["rule"] for t in found.result["thresholds"]} and rate.folder is None


def test_threads_are_put_back() -> None:
    data = Blobs(seed=0)
    torch.set_num_threads(2)
    try:
        study(PCA(data.shape), data, threads=1)
        assert torch.get_num_threads() == 2
        with pytest.raises(StraylightError, match="Nothing was trained"):
            study(VAE(data.shape), data, epochs=0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_comparison_over_seeds(monkeypatch) -> None:
    own: dict[str, list] = {"near": [], "straight": []}
    for seed in (0, 1):
        data = Digits(seed=seed)
        own["near"].append(study(KNN(data.shape), data))
        own["straight"].append(study(PCA(data.shape), data))
    found = Comparison(own)
    assert {row.detector: row.seeds for row in found.rows} == {"near": 2, "straight": 2}
    for row in found.rows:
        values = [s.metric("auroc") for s in own[row.detector]]
        assert row.numbers["auroc"].mean == pytest.approx(np.mean(values)) and row.numbers["auroc"].low == min(values)
    said = str(found)
    assert "near" in said and "straight" in said and "digits_0" in said and "AUROC" in said
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert str(found) == said, "a notebook prints it, too"
    for figure in (found.pareto(), found.roc(), found.kinds()):
        assert isinstance(figure, Figure)


def test_a_comparison_where_a_resonance_is_looked_for() -> None:
    data = Bump(events=4000, signal_fraction=0.05, test_background=1000, test_signal=200)
    trees = {"members": 1, "max_iter": 10}
    found = {
        "over": study(CWoLa(data.shape, context=1, trees=trees, folds=2), data),
        "out": study(PCA(data.shape, context=1), data),
    }
    assert {"cuts", "sculpting", "optimum_curve"} <= set(found["over"].result["bump"])
    assert "cuts" not in found["out"].result["bump"]
    improved = Comparison(found).sic()
    said = [text.get_text() for text in improved.legends[0].get_texts()]
    assert any(text.startswith("over ") for text in said) and any(text.startswith("optimum ") for text in said)
    assert isinstance(Comparison(found).significances(), Figure) and isinstance(found["over"].draw("spectrum"), Figure)
    assert Comparison({"out": found["out"]}).significances() is None, "no hunt of it"


def test_a_study_scores_flags_and_explains_a_new_table_as_a_run_does():
    random = np.random.default_rng(0)
    table = {"a": random.normal(size=400), "s": np.array(["u", "v"])[np.arange(400) % 2]}
    frame = pa.table(table)
    found = study("knn", frame, label=np.arange(400) % 20 == 0, val_fraction=0.5, progress=False)
    new = pa.table({"s": ["u", "w", "v"], "a": [0.1, 0.2, None]})
    scores = found.score(new, missing="skip")
    assert np.isfinite(scores[:2]).all() and np.isnan(scores[2]) and scores[1] > scores[0]
    with pytest.raises(DataError, match="row 3: 'a' is missing"):
        found.score(new)
    np.testing.assert_array_equal(found.score(frame)[found.rows["row"].to_numpy() - 1], found.scores)
    assert (found.p_values(frame) <= 1).all() and found.flag(frame, "fpr=0.1").mean() < 0.3
    assert found.explain(pa.table({"s": ["u"], "a": [9.0]})).first(0, 1) == [0]
