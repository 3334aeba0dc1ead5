"""`straylight detectors`: what is said of each, by the heads of configs and the docstrings of classes."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from straylight import cli
from straylight.catalogue import FAMILIES, FIELDS, entries, entry, settings, target_of, written
from straylight.commands.detectors import FIRST
from straylight.groups import FOLDER, choices

PROJECT = Path(__file__).parents[1]
NAMES = choices("detector")
DATED = re.compile(r"\b(1[89]|20)\d\d\b|arXiv:|https:")


def said(monkeypatch, capsys, *words: str, columns: int = 80) -> tuple[str, str, int]:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "argv", ["straylight", "detectors", *words])
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return out, err, code


def test_the_listing_imports_nothing_heavy_and_takes_less_than_a_second() -> None:
    code = (
        "import sys, time; sys.argv = ['straylight', 'detectors']\n"
        "from straylight.cli import main; main()\n"
        "sys.stderr.write(f\"{time.process_time()} {' '.join({m.split('.')[0] for m in sys.modules})}\")"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, *modules = ended.stderr.split()
    assert not {"torch", "pytorch_lightning", "hydra", "omegaconf", "sklearn", "numpy", "pydantic"} & set(modules)
    assert float(seconds) < 1.0
    assert all(re.search(rf"^  {name}: ", ended.stdout, re.MULTILINE) for name in NAMES)


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_it_is_readable_at_any_width(columns, monkeypatch, capsys) -> None:
    for words in ([], ["vae"], ["ensemble"]):
        out, _, code = said(monkeypatch, capsys, *words, columns=columns)
        lines = [line for line in out.splitlines() if not re.search("straylight train|^config |://", line)]
        assert code == 0 and max(map(len, lines)) <= columns


def test_families_come_in_their_order_and_kinds_of_data_at_the_end(monkeypatch, capsys) -> None:
    out, _, _ = said(monkeypatch, capsys)
    heads = [line for line in out.splitlines() if line and not line.startswith(" ")]
    assert heads[: len(FAMILIES)] == list(FAMILIES)
    assert out.index("which first") > out.rindex("Good for:")
    for kind, names, _ in FIRST:
        assert f"  {kind}" in out and set(names.split(", ")) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_head_has_the_form(name) -> None:
    found = entry("detector", name)
    assert list(found.fields) == [f for f in FIELDS if f in found.fields]
    assert set(FIELDS) - set(found.fields) <= {"Note"}
    assert found.family in FAMILIES and found.what and len(found.what) <= 100
    assert all(text.endswith(".") for field, text in found.fields.items() if field != "Example")
    assert max(map(len, found.path.read_text(encoding="utf-8").splitlines())) <= 120
    words = found.fields["Example"].split()
    assert words[:3] == ["straylight", "train", f"detector={name}"]
    assert next(w.partition("=")[2] for w in words if w.startswith("data=")) in choices("data")


@pytest.mark.parametrize("name", NAMES)
def test_one_detector_has_settings_papers_and_an_example(name, monkeypatch, capsys) -> None:
    out, _, code = said(monkeypatch, capsys, name, columns=110)
    found = entry("detector", name)
    assert code == 0 and found.fields["Example"] in out
    keys = settings(found)
    assert all(re.search(rf"^  {s.key} +{re.escape(s.default)}", out, re.MULTILINE) for s in keys)
    place = written(target_of(found))
    assert place is not None and f"class {target_of(found).rpartition('.')[2]}(" in place.path.read_text()
    assert all(DATED.search(paper) for paper in place.papers), "one that is torn apart has no year of its own"
    assert place.papers or found.family == "particles"


@pytest.mark.parametrize("group", ["detector", "data"])
def test_settings_are_those_that_a_run_has(group) -> None:
    """The defaults, by Hydra and OmegaConf, of each config with what it extends."""
    import yaml
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(version_base="1.3", config_dir=str(FOLDER)):
        for found in entries(group):
            cfg = compose("train", overrides=[f"{group}={found.name}", "paths.run=."])
            composed = OmegaConf.to_container(cfg, resolve=False)[group]
            assert target_of(found) == composed["_target_"], found.name
            for key, default, _ in ((s.key, s.default, s.comment) for s in settings(found)):
                if found.name == "ensemble" and key == "member":
                    assert default == "autoencoder" and composed[key]["_target_"].endswith(".AutoEncoder")
                    continue
                assert OmegaConf.to_container(OmegaConf.create(f"k: {default}"))["k"] == composed[key], (
                    found.name,
                    key,
                )
            if group == "detector":
                assert {s.key for s in settings(found)} == set(composed) - {"_target_"}, found.name
            assert yaml.safe_load(found.path.read_text()) is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_example_is_a_command_that_composes(name, straylight_train) -> None:
    words = entry("detector", name).fields["Example"].split()[2:]
    ended = straylight_train(*words, "--cfg", "job")
    assert ended.status == 0 and f"_target_: {target_of(entry('detector', name))}" in ended.out


OWN = '''"""Own."""
class Denoiser:
    """What cannot be cleaned of noise is strange.

    References:
        P. Vincent et al., Extracting and composing robust features with denoising
        autoencoders, ICML 2008
        J. Doe, Another, 2020

    Args:
        noise: how much of it.
    """
'''


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    (tmp_path / "conf" / "detector").mkdir(parents=True)
    (tmp_path / "their_own.py").write_text(OWN + "raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "conf"


def test_own_detectors_are_listed_with_their_family_and_never_imported(own, monkeypatch, capsys) -> None:
    (own / "detector" / "denoiser.yaml").write_text(
        "# Denoising autoencoder. Vincent et al. 2008\n# Family: denoisers.\n# Assumes: one\n#   scale.\n# Cost: low.\n"
        "_target_: their_own.Denoiser\nnoise: 0.3\nhidden: [8] # widths\n"
    )
    out, _, code = said(monkeypatch, capsys, "--config-dir", str(own))
    assert code == 0 and "denoisers\n  denoiser: Denoising autoencoder.\n      Assumes: one scale." in out
    assert out.index("denoisers") > out.index("particles\n")
    out, _, code = said(monkeypatch, capsys, "denoiser", "--config-dir", str(own))
    assert code == 0 and "assumes   one scale." in out and "straylight train detector=denoiser" in out
    assert re.search(r"noise +0.3 +how much of it$", out, re.MULTILINE)
    assert re.search(r"hidden +\[8\] +widths$", out, re.MULTILINE)
    assert "  * P. Vincent et al., Extracting" in out and "  * J. Doe, Another, 2020" in out


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("_target_: their_own.Denoiser\n", "their_own.Denoiser, whose YAML file has no head"),
        ("_target_: nowhere.at.all.Own\n", "nowhere.at.all.Own"),
        ("_target_: Bare\n", "Bare"),
        ("defaults: [knn, _self_]\nk: 9\n", "straylight.detectors.KNN"),
        ("{}\n", "denoiser"),
    ],
)
def test_whatever_an_own_config_leaves_out_there_is_an_answer(text, wanted, own, monkeypatch, capsys) -> None:
    (own / "detector" / "denoiser.yaml").write_text(text)
    out, _, code = said(monkeypatch, capsys, "--config-dir", str(own), columns=110)
    assert code == 0 and "\nothers\n  denoiser: " in out and wanted in out
    out, _, code = said(monkeypatch, capsys, "denoiser", "--config-dir", str(own))
    assert code == 0 and "straylight train detector=denoiser" in out


def test_no_head_sends_a_command_to_the_terminal(own, monkeypatch, capsys) -> None:
    (own / "detector" / "denoiser.yaml").write_text("# Odd \x1b[2J head.\n_target_: their_own.Denoiser\n")
    out, _, code = said(monkeypatch, capsys, "--config-dir", str(own))
    assert code == 0 and "\\x1b[2J head." in out and "\x1b" not in out


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["nfs"], "There is no detector 'nfs' (did you mean 'nsf'?); choose one of aae, "),
        (["knn", "vae"], "give one detector, such as `straylight detectors knn`."),
        (["--colour=never"], "there is no option --colour; there is --config-dir DIR."),
        (["--config-dir", "nowhere"], "--config-dir: there is no folder nowhere."),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(words, wanted, monkeypatch, capsys) -> None:
    out, err, code = said(monkeypatch, capsys, *words)
    assert code == 1 and not out and err.startswith(f"Error: {wanted}") and len(err.splitlines()) == 1


def test_a_config_that_is_no_yaml_is_refused_in_a_sentence(own, monkeypatch, capsys) -> None:
    (own / "detector" / "denoiser.yaml").write_text("_target_: [\n")
    for words in ([], ["denoiser"]):
        _, err, code = said(monkeypatch, capsys, *words, "--config-dir", str(own))
        assert code == 1 and "denoiser.yaml is no config" in err and len(err.splitlines()) == 1


def test_what_is_said_of_adbench_is_what_the_benchmark_found() -> None:
    found = {}
    for table in ("adbench_residual", "adbench_random_features"):
        with (PROJECT / "tests" / "benchmarks" / f"{table}.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                found[row["dataset"], row["detector"]] = float(row["auroc_mean"]) / 100
    rows = re.findall(r"^\| `(\d+_\w+)` \| ([\d,]+) / ", (PROJECT / "docs" / "data.md").read_text(), re.MULTILINE)
    train = {name: int(number.replace(",", "")) for name, number in rows}
    sets = {
        "tables": list(train),
        "few rows": [name for name, n in train.items() if n < 250],
        "many rows": [name for name, n in train.items() if n > 15_000],
    }
    assert [len(names) for names in sets.values()] == [31, 10, 8]
    for kind, detectors, numbers in FIRST:
        if kind in sets:
            means = [
                sum(found[name, detector] for name in sets[kind]) / len(sets[kind])
                for detector in detectors.split(", ")
            ]
            assert [f"{mean:.3f}" for mean in means] == re.findall(r"0\.\d+", numbers)


def test_a_program_reads_what_is_listed(monkeypatch, capsys) -> None:
    listed = {one["name"]: one for one in json.loads(said(monkeypatch, capsys, "--json")[0])}
    assert set(listed) == set(NAMES) and listed["knn"]["family"] and listed["knn"]["what"]
    (knn,) = json.loads(said(monkeypatch, capsys, "knn", "--json")[0])
    assert knn["class"] == "straylight.detectors.KNN" and knn["papers"]
    assert "k" in {one["key"] for one in knn["settings"]}
