"""What a folder that somebody sent may do when it is opened, timed or gone on with: nothing but be read."""

import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.text import Text

from straylight import trust
from straylight.commands.report import main as report
from straylight.commands.retime import retime
from straylight.console import Formatter, Plain, say
from straylight.errors import ConfigError, DataError
from straylight.folder import RunFolder, SweepFolder
from straylight.groups import FOLDER
from straylight.run import Run
from straylight.streams import CONTROL

#: Targets that run, read or write what they are given, under names of all sorts.
EVIL = [
    "numpy.load",
    "torch.load",
    "joblib.load",
    "numpy.testing.runstring",
    "pathlib.Path.touch",
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "hydra.utils.instantiate",
    "straylight.detectors.base.torch.load",
    "straylight.data.stored.Path",
    "straylight.atomic.write_json",
    "straylight.folder.RunFolder",
    "straylight.detectors.nothing.PCA",
    "straylight.detectorsevil.PCA",
    "${oc.env:HOME}",
    "torch.optim.Adam.step",
    3,
    None,
    {"a": 1},
]


def names(node) -> set[str]:
    if isinstance(node, list):
        return set().union(*map(names, node))
    if not isinstance(node, dict):
        return set()
    here = {node["_target_"]} if "_target_" in node else set()
    return here | set().union(*map(names, node.values()))


SHIPPED = set().union(*(names(yaml.safe_load(path.read_text())) for path in FOLDER.rglob("*.yaml")))


def test_what_is_shipped_is_what_the_configs_name() -> None:
    """No more is trusted than is needed, and no less."""
    ours = {name for name in SHIPPED if name.startswith(trust.OWN)}
    hydras = {name for name in trust.SHIPPED if name.startswith("hydra")}
    earlier = {"pytorch_lightning.loggers.TensorBoardLogger"}  # in the configs of runs of earlier versions
    assert SHIPPED - ours == trust.SHIPPED - hydras - earlier
    for name in SHIPPED | hydras:
        trust.check({"it": {"_target_": name}})


@pytest.mark.parametrize("target", EVIL, ids=str)
@pytest.mark.parametrize("deep", [lambda n: n, lambda n: [n], lambda n: {"a": [{"b": n}]}], ids=["top", "list", "deep"])
def test_a_target_that_nobody_trusts_is_refused_at_every_depth(target, deep) -> None:
    with pytest.raises(ConfigError, match="_target_ is"):
        trust.check({"detector": {"_target_": "straylight.detectors.PCA", "more": deep({"_target_": target})}})


def test_what_the_reader_names_is_trusted_with_what_is_in_it_and_no_other() -> None:
    config = {"detector": {"_target_": "mine.detectors.Own"}}
    for name in ("mine", "mine.detectors", "mine.detectors.Own"):
        trust.check(config, [name])
    for name in ("min", "mine.detect", "detectors", ""):
        with pytest.raises(ConfigError, match=r"--trust mine\.detectors\.Own"):
            trust.check(config, [name])


@pytest.mark.parametrize(
    "value",
    [
        "${oc.create:{_target_: os.system}}",
        "${oc.decode:'{_target_: os.system}'}",
        "${${which}:x}",
        "a ${oc.select:b}",
        "${oc.env:A,${oc.create:1}}",
    ],
)
def test_values_that_are_worked_out_are_refused(value) -> None:
    with pytest.raises(ConfigError, match="worked out"):
        trust.check({"optimizer": value})


@pytest.mark.parametrize("value", ["${paths.run}", "${.lr}", "${oc.env:STRAYLIGHT_DATA,data}", "${a[0].b}/x", "$HOME"])
def test_values_that_stand_elsewhere_are_not(value) -> None:
    trust.check({"optimizer": value})


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("folder", "${paths.run}/figures", True),
        ("folder", "${paths.run}/../other", False),
        ("folder", "${paths.run}x/../../other", False),
        ("path", "/etc/x", False),
        ("path", "here.h5", False),
        ("note", "/etc/x", False),
        ("note", "~/x", False),
        ("note", "a/b", True),
        ("save_dir", "{run}/x", True),
        ("name", "${paths.elsewhere}", False),
        ("name", "${paths.run}/${paths.elsewhere}", False),
    ],
)
@pytest.mark.parametrize("group", ["callbacks", "logger", "trainer"])
def test_a_run_writes_into_its_own_folder(group, key, value, allowed, tmp_path) -> None:
    config = {group: {"it": {key: value.replace("{run}", str(tmp_path))}}}
    if allowed:
        trust.check(config, folder=tmp_path)
    else:
        with pytest.raises(ConfigError, match="out of the run's own folder"):
            trust.check(config, folder=tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("job_logging", {"handlers": {"x": {"()": "os.system"}}}),
        ("callbacks", {"x": {"_target_": "mine.Callback"}}),
        ("job", {"env_set": {"LD_PRELOAD": "evil.so"}}),
        ("launcher", {"_target_": "mine.Launcher"}),
        ("sweeper", {"_target_": "os.system"}),
        ("output_subdir", "../../x"),
        ("sweep", {"subdir": "../../x"}),
        ("sweep", {"subdir": "/etc/x"}),
    ],
)
def test_hydras_own_part_may_not_be_changed_by_a_folder(key, value) -> None:
    standard = {
        "launcher": {"_target_": "hydra_plugins.straylight_local.local.LocalLauncher"},
        "job": {"name": "train"},
    }
    trust.check_hydra({**standard, "job": {"name": "other"}, "sweep": {"dir": "x"}}, standard)
    with pytest.raises(ConfigError, match=f"hydra.{key}"):
        trust.check_hydra({**standard, key: value}, standard)


# folders


def poison(folder: RunFolder, key: str, value) -> None:
    config = yaml.safe_load(folder.config.read_text())
    *path, last = key.split(".")
    node = config
    for name in path:
        node = node.setdefault(name, {})
    node[last] = value
    folder.config.write_text(yaml.safe_dump(config))


PLACES = ["detector.extra", "optimizer", "callbacks.evil", "logger.evil", "trainer.plugins", "data.more", "new.group"]


@pytest.mark.parametrize("place", PLACES)
def test_no_way_of_opening_builds_what_a_config_names(place, sent, tmp_path, straylight_train, capfd) -> None:
    mark = tmp_path / "ran"
    poison(
        sent, place, {"_target_": "pathlib.Path.touch", "_args_": [{"_target_": "pathlib.Path", "_args_": [str(mark)]}]}
    )
    before = {path: path.read_bytes() for path in sent.path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="pathlib"):
        Run.open(sent.path)
    assert retime(sent.path) == 1 and "pathlib" in capfd.readouterr().err
    ended = straylight_train(f"resume={sent}", "trainer.max_epochs=2")
    assert ended.status == 1 and "--trust pathlib" in ended.err and "Traceback" not in ended.err
    assert not mark.exists()
    assert {path: path.read_bytes() for path in sent.path.rglob("*") if path.is_file()} == before


def test_a_run_of_somebodys_own_classes_opens_for_who_trusts_them(sent, tmp_path, monkeypatch) -> None:
    (tmp_path / "theirs.py").write_text("from straylight.detectors import VAE\nclass Own(VAE):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    poison(sent, "detector._target_", "theirs.Own")
    with pytest.raises(ConfigError, match=r"--trust theirs\.Own"):
        Run.open(sent.path)
    assert type(Run.open(sent.path, trust=["theirs"]).detector).__name__ == "Own"


BOMB = "a: &a [x, x]\n" + "".join(
    f"{n}: &{n} [{', '.join([f'*{m}'] * 9)}]\n" for m, n in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize("name", [".hydra/config.yaml", ".hydra/hydra.yaml"])
@pytest.mark.parametrize("text", [BOMB, "[" * 5000, "{a: " * 5000, "- " * 5000, "x: " + "y" * 2**21, "", "\0", "a: ["])
def test_a_config_that_would_take_for_ever_is_refused_at_once(name, text, sent) -> None:
    (sent.path / name).write_text(text)
    with pytest.raises(ConfigError):
        Run.open(sent.path)


# sweeps


def asked_for(sweep: SweepFolder, **changed) -> None:
    """Change what a sweep says that it was asked for."""
    (path,) = sweep.manifests.glob("*.json")
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, **{key: [*known[key], *more] for key, more in changed.items()}}))


@pytest.mark.parametrize(
    "override",
    [
        "+hydra.callbacks.evil={_target_:pathlib.Path,_args_:[x]}",
        "hydra.launcher._target_=os.system",
        "hydra.sweeper._target_=mine.Sweeper",
        "hydra.job_logging.handlers.file.filename=evil.log",
        "+hydra.job_logging.handlers.evil={class:logging.FileHandler,filename:evil.log}",
        "+hydra.job.env_set.LD_PRELOAD=evil.so",
        "optimizer._target_=pathlib.Path.touch",
        "detector._target_=mine.Own,straylight.detectors.PCA",
        "+callbacks.evil={_target_:pathlib.Path.touch,self:evil.log}",
        "+detector.more=${oc.create:{}}",
    ],
)
def test_no_part_of_a_sweep_that_is_gone_on_with_is_built(override, sent_sweep, straylight_train, tmp_path) -> None:
    asked_for(sent_sweep, overrides=[override, "seed=0,1,2"])
    ended = straylight_train("-m", f"resume={sent_sweep.path}")
    assert ended.status == 1 and ended.err.startswith("Error: ") and "Traceback" not in ended.err, ended.err
    assert [r["status"] for r in sent_sweep.results()] == ["ok"] * 4, "there is no new job"
    assert not list(tmp_path.rglob("evil*"))


def test_configs_that_came_with_a_sweep_are_composed_and_not_trusted(sent_sweep, straylight_train, tmp_path) -> None:
    (sent_sweep.path / "own" / "detector").mkdir(parents=True)
    (sent_sweep.path / "own" / "detector" / "own.yaml").write_text("_target_: pathlib.Path.touch\n")
    asked_for(sent_sweep, config_dirs=[str(sent_sweep.path / "own")], overrides=["detector=hbos,own"])
    ended = straylight_train("-m", f"resume={sent_sweep.path}")
    assert ended.status == 1 and "--trust pathlib.Path.touch" in ended.err
    typed = straylight_train("-m", f"resume={sent_sweep.path}", f"--config-dir={sent_sweep.path / 'own'}")
    assert "--trust" not in typed.err, "what is typed is free, if of no use here"


# the terminal

CONTROLS = "\x1b[2J\x07\x9b31m\u202e"


def test_names_reach_the_terminal_without_their_control_characters(sent, sent_sweep, tmp_path, capfd) -> None:
    for folder in (sent, sent_sweep.runs()[0]):
        result = json.loads(folder.result.read_text())
        odd = {name: CONTROLS + name for name in ("detector", "data", "reason", "command")}
        folder.write_result({**result, **odd, "notices": [CONTROLS], "metrics": {**result["metrics"], CONTROLS: 0.5}})
    for arguments in ([str(sent)], [str(sent), "--details"], [str(sent_sweep.path)]):
        report(arguments)
        said = capfd.readouterr()
        assert "\\x1b[2J" in said.out and not CONTROL.search(said.out + said.err)
    with pytest.raises(SystemExit):
        report([str(tmp_path / CONTROLS)])
    assert not CONTROL.search(capfd.readouterr().err)


def test_what_is_logged_and_printed_is_plain(capsys) -> None:
    record = logging.LogRecord("x", 20, "y", 1, CONTROLS, (), None)
    assert not CONTROL.search(Formatter("%(message)s").format(record))
    say(f"a{CONTROLS}\tb")
    Plain(file=sys.stdout, width=80, force_terminal=True, color_system="standard").print(Text(CONTROLS, style="red"))
    out = capsys.readouterr().out
    assert "\\x1b[2J" in out and "\x1b[31m" in out, "its own styles are sent"
    assert not CONTROL.search(out.replace("\x1b[31m", "").replace("\x1b[0m", ""))


# HDF5


@pytest.fixture
def secret(tmp_path) -> Path:
    path = tmp_path / "secret.bin"
    np.arange(40, dtype="<f8").tofile(path)
    return path


def hdf5_external(path: Path, secret: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("x", (20, 2), "f8", external=[(str(secret), 0, 320)])


def hdf5_virtual(path: Path, secret: Path) -> None:
    import h5py

    other = secret.with_suffix(".h5")
    with h5py.File(other, "w") as file:
        file["x"] = np.arange(40.0).reshape(20, 2)
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((20, 2), "f8")
        layout[:] = h5py.VirtualSource(str(other), "x", (20, 2))
        file.create_virtual_dataset("x", layout)


@pytest.mark.parametrize("write", [hdf5_external, hdf5_virtual])
def test_an_hdf5_file_reads_no_other(write, secret, tmp_path) -> None:
    from straylight.data import File

    write(tmp_path / "sent.h5", secret)
    with pytest.raises(DataError, match="which is not read"):
        File(path=tmp_path / "sent.h5").setup()


def hdf5_linked(path: Path, secret: Path) -> None:
    import h5py

    other = secret.with_suffix(".h5")
    with h5py.File(other, "w") as file:
        file["x"] = np.zeros((20, 19, 4))
    with h5py.File(path, "w") as file:
        file["Particles"] = h5py.ExternalLink(str(other), "x")


def test_a_link_to_another_hdf5_file_is_not_followed(secret, tmp_path) -> None:
    from straylight.data.particles import particles

    hdf5_linked(tmp_path / "sent.h5", secret)
    with pytest.raises(DataError, match="which is not read"):
        particles(tmp_path / "sent.h5")


def test_a_virtual_data_set_of_parts_of_the_same_file_is_read(tmp_path) -> None:
    """Such as the views of each kind that `results.h5` has."""
    import h5py

    from straylight.files.hdf5 import own

    with h5py.File(tmp_path / "mine.h5", "w") as file:
        file["whole"] = np.arange(6.0)
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource(".", "whole", (6,))[3:]
        file.create_virtual_dataset("view", layout)
    with h5py.File(tmp_path / "mine.h5") as file:
        assert own(file, file["view"])[:].tolist() == [3, 4, 5]
