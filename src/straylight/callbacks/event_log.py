"""TensorBoard's files of a run, laid out as they are read: losses first, final numbers in its table alone."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger

from straylight.callbacks.gallery import is_loss
from straylight.callbacks.tracker import once

#: What TensorBoard's table of runs shows first of what was measured; it sorts columns by their hidden names.
FIRST = ("auroc", "ap", "tpr", "partial_auroc")
COUNTS = ("nominal", "anomalous")  # of rows, which are no metric of a run
LOSSES = {"Loss/val": "val/loss", "Loss/train": "train/loss"}  # which TensorBoard takes from its charts


class EventLog(TensorBoardLogger):
    """Lightning's TensorBoard logger, with charts for what has a course and a line of a table for what is one number.

    TensorBoard calls a run by its folder, shows charts in the order of their tags and groups them by what stands before
    the first slash, capitals first. So the folder bears the run's name, losses are `Loss/train` and `Loss/val`, their
    terms `Loss/train/TERM`, and figures, `training/lr` and others come behind. The final `test/...` make no charts of
    one point: they are columns of HPARAMS, see `conclude`.

    Args:
        save_dir: the run's folder.
        name: of the folder in it, by which TensorBoard calls the run; `None` has whoever starts the run say.
        options: see `pytorch_lightning.loggers.TensorBoardLogger`.

    Attributes:
        named: whether the name was given.
        final: what was measured once, by its name.
    """

    def __init__(self, save_dir: str, name: str | None = None, **options: Any) -> None:
        super().__init__(save_dir, name=name or "tensorboard", version="", default_hp_metric=False, **options)
        self.named, self.final = name is not None, dict[str, float]()

    def rename(self, name: str) -> None:
        """Call the run by another name, before anything is written."""
        self._name = name

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.final |= {name: float(value) for name, value in metrics.items() if once(name)}
        charts = {tag(name): value for name, value in metrics.items() if name not in self.final and name != "epoch"}
        if charts:
            super().log_metrics(charts, step)

    def conclude(self, leading: Mapping[str, Any], rest: Mapping[str, Any], final: Mapping[str, float]) -> None:
        """Write the run's line of TensorBoard's table, HPARAMS, and close the files.

        Args:
            leading: columns that come first, in this order: bool, numbers or texts by their name.
            rest: columns that come last.
            final: what was measured, beside what was logged as final; these columns come between.
        """
        measured = {
            name: value
            for name, value in {**self.final, **final}.items()
            if math.isfinite(value) and not _bare(name).startswith(COUNTS)
        }
        # of those behind the third, the others of a sweep may have more or fewer
        first = {f"{min(i, 4)} {name}": (name, value) for i, (name, value) in enumerate(leading.items(), 1)}
        others = {f"5{_place(name)} {name}": (name, value) for name, value in measured.items()}
        last = {f"6 {name}": (name, value) for name, value in rest.items() if name not in leading}
        writer = self.experiment._get_file_writer()
        for summary in _table({**first, **others, **last}, len(first)):
            writer.add_summary(summary)
        self.experiment.close()  # with the thread that writes


def tag(name: str) -> str:
    """What a number by epoch is called in TensorBoard.

    Example:
        >>> [tag(name) for name in ("train/loss", "val/kl", "train/lr", "by_epoch/auroc")]
        ['Loss/train', 'Loss/val/kl', 'training/lr', 'test_by_epoch/auroc']
    """
    stage, _, rest = name.partition("/")
    if is_loss(name):
        return f"Loss/{stage}" if rest == "loss" else f"Loss/{stage}/{rest}"
    return {"train": "training/", "by_epoch": "test_by_epoch/"}.get(stage, f"{stage}/" if rest else stage) + rest


def _bare(name: str) -> str:
    return name.removeprefix("test/")


def _place(name: str) -> str:
    """Overall before each kind, and the metrics that are asked for first before others."""
    metric, _, kind = _bare(name).partition("/")
    rank = next((i for i, first in enumerate(FIRST) if metric == first or metric.startswith(f"{first}@")), len(FIRST))
    return f"{'b' if kind else 'a'}{rank}"


def _table(columns: Mapping[str, tuple[str, Any]], leading: int) -> Iterator[Any]:
    """The three summaries that make a line of HPARAMS.

    TensorBoard sorts columns by whether they are said to differ, then by name, and shows their display names.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

    infos, start = [], SessionStartInfo()
    for i, (name, (shown, value)) in enumerate(columns.items()):
        if isinstance(value, bool):
            kind, start.hparams[name].bool_value = api_pb2.DATA_TYPE_BOOL, value
        elif isinstance(value, int | float):
            kind, start.hparams[name].number_value = api_pb2.DATA_TYPE_FLOAT64, value
        else:
            kind, start.hparams[name].string_value = api_pb2.DATA_TYPE_STRING, str(value)
        infos.append(api_pb2.HParamInfo(name=name, display_name=shown, type=kind, differs=i < leading))
    metrics = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=shown) for tag, shown in LOSSES.items()
    ]
    parts = {
        metadata.EXPERIMENT_TAG: {"experiment": api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics)},
        metadata.SESSION_START_INFO_TAG: {"session_start_info": start},
        metadata.SESSION_END_INFO_TAG: {"session_end_info": SessionEndInfo(status=api_pb2.STATUS_SUCCESS)},
    }
    for tag, part in parts.items():
        data = metadata.create_summary_metadata(HParamsPluginData(**part))
        yield Summary(value=[Summary.Value(tag=tag, metadata=data)])
