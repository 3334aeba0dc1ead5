"""What was typed wrong is answered with what to type, in one sentence, before Hydra sees it."""

import shlex

import pytest

from straylight.commands import typed
from straylight.errors import ConfigError

CORRECTED = [
    ("--detector vae", "detector=vae"),
    ("--detector=vae data=blobs", "detector=vae data=blobs"),
    ("--seed=1", "seed=1"),
    ("data=blobs --seed 1 detector=knn", "data=blobs seed=1 detector=knn"),
    ("--max-epochs 5", "trainer.max_epochs=5"),
    ("--optimizer.lr 1e-3", "optimizer.lr=1e-3"),
    ("--lr", "optimizer.lr=VALUE"),
    ("max_epochs=5", "trainer.max_epochs=5"),
    ("batch_size=64", "data.batch_size=64"),
    ("detector vae", "detector=vae"),
    ("-m detector vae seed=0,1", "-m detector=vae seed=0,1"),
    ("vae", "detector=vae"),
    ("data=blobs knn", "data=blobs detector=knn"),
    ("blobs", "data=blobs"),
    ("mnist_vae_conv", "experiment=mnist_vae_conv"),
    ("detector=vae,knn", "-m detector=vae,knn"),
    ("detector=vae data=blobs seed=range(3)", "-m detector=vae data=blobs seed=range(3)"),
    ("detector.hidden=[32, 16]", "detector.hidden=[32,16]"),
    ("detector.hidden=[32, 16, 8] seed=1", "detector.hidden=[32,16,8] seed=1"),
    ("seed=0,", "seed=0"),
    ("-m seed=0,1,", "-m seed=0,1"),
    ("--multirun=true seed=0,1", "--multirun seed=0,1"),
]


def said(words: list[str]) -> str:
    with pytest.raises(ConfigError) as error:
        typed.refuse(words)
    text = str(error.value)
    assert "\n" not in text and "hydra.cc" not in text and "EOF" not in text
    return text


@pytest.mark.parametrize(("command", "instead"), CORRECTED)
def test_it_is_said_what_to_type_instead_and_that_is_taken(command, instead) -> None:
    shown = said(command.split(" ")).partition("straylight train ")[2]
    assert shlex.split(shown) == instead.split(" ")
    if "VALUE" not in instead:
        typed.refuse(instead.split(" "))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["~data"], "data=NAME"),
        (["~detector"], "detector=NAME"),
        (["~trainer"], "trainer=NAME"),
        (["--foo"], "--config-dir"),
        (["--confg-dir", "x"], "did you mean '--config-dir'"),
        (["--cfg", "nothing"], "job, hydra, all"),
        (["--config-dir"], "wants a value"),
        (["nonsense"], "KEY=VALUE"),
        (["detector.hidden=[3"], "closing ]"),
        (["data.note={a:[1"], "closing ]}"),
        (["data.note='a"], "closing '"),
        (["data.note=a)b"], "quoted"),
    ],
)
def test_what_cannot_be_corrected_is_named(command, words) -> None:
    assert words in said(command)


@pytest.mark.parametrize(
    "command",
    [
        "",
        "-m detector=vae,knn data=blobs seed=0,1",
        "experiment=sweep/digits seed=0,1",
        "-m resume=folder seed=0,1",
        "--config-dir own detector=mine",
        "--config-dir=own detector=mine",
        "--cfg job --package data",
        "~logger +trainer.fast_dev_run=true ++seed=1",
        "data.path=Zürich.csv data.name=Zürich data.csv.separator=;",
        "detector.hidden=[] detector.note={a:1} data.classes='x,y'",
        "hydra.run.dir=out/${now:%H-%M}",
        "data.name=",
    ],
)
def test_what_is_meant_passes(command) -> None:
    typed.refuse(command.split(" ") if command else [])


def test_a_group_of_the_users_own_may_be_called_like_a_key(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.max_epochs"):
        typed.refuse([f"--config-dir={tmp_path}", "max_epochs=3"])
    (tmp_path / "max_epochs").mkdir()
    typed.refuse([f"--config-dir={tmp_path}", "max_epochs=few"])


@pytest.mark.parametrize("separator", [";", "|", "\t"])
def test_a_text_that_the_grammar_has_no_place_for_is_read_as_it_stands(separator, straylight_train, tmp_path) -> None:
    rows = [("a", "b", "label"), *((str(i), str(i % 7), str(int(i % 9 == 0))) for i in range(90))]
    path = tmp_path / "Größe.csv"
    path.write_text("\n".join(map(separator.join, rows)), encoding="utf-8")
    shown = separator.replace("\t", "'\\t'")
    told = (f"data.path={path}", f"+data.csv.separator={shown}", "data.label=label")
    ended = straylight_train("detector=hbos", "data=file", *told)
    assert ended.status == 0, ended.err


@pytest.mark.parametrize("key", ["detector.hidden", "callbacks.thresholds.fprs"])
def test_a_value_alone_where_a_list_is_wanted_is_a_list_of_one(key, straylight_train) -> None:
    value = {"detector.hidden": "8", "callbacks.thresholds.fprs": "0.1"}[key]
    ended = straylight_train("detector=autoencoder", "data=blobs", f"{key}={value}", epochs=1)
    assert ended.status == 0, ended.err
