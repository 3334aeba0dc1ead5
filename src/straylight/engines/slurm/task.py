"""`python -m straylight.engines.slurm.task LIST REQUEUE PLACE`: one job of an array, on its node."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from straylight.engines import node
from straylight.engines.slurm import commands
from straylight.folder import RunFolder
from straylight.job.order import Order
from straylight.job.perform import ENDS
from straylight.stopping import STOP


def main(arguments: list[str]) -> int:
    """Entry point. SIGINT is how a sweep ends its jobs; Slurm itself sends SIGTERM, before it takes the node away."""
    listed, times, place = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    folder = RunFolder(listed.read_text(encoding="utf-8").splitlines()[place])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _told)
    status = node.do(folder.path, threads=_cpus(), several=_by_srun)
    for number in (signal.SIGINT, signal.SIGTERM):  # it has ended, and is told so once more when it is queued again
        signal.signal(number, signal.SIG_IGN)
    if status == ENDS["interrupted"] and STOP.by == signal.SIGTERM:
        _go_on_later(folder, times)
    return status


def _told(number: int, frame: Any) -> None:
    """Before the run itself listens."""
    STOP.by = number
    raise KeyboardInterrupt


def _cpus() -> int | None:
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return int(given) if given.isdigit() else None


def _go_on_later(folder: RunFolder, times: int) -> None:
    """Have a job that was interrupted by Slurm queued again, unless somebody has cancelled it."""
    number = _number()
    if commands.shown(number).get("JobState") not in ("RUNNING", "PREEMPTED"):
        return
    been = int(os.environ.get("SLURM_RESTART_COUNT", 0))
    if been < times:
        print(f"Slurm takes the node away: the job goes on in another turn ({been + 1} of {times}).", flush=True)
        if commands.requeued(number):
            return
    reason = f"It ran into its time limit, after {been} earlier turns (hydra.launcher.time, hydra.launcher.requeue)."
    result = folder.read() or {}
    folder.write_result({**result, "status": "interrupted", "reason": reason})


def _number() -> str:
    array, place = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{place}" if array and place else os.environ["SLURM_JOB_ID"]


def _by_srun(order: Order, folder: RunFolder) -> int:
    """Run a job of several nodes, whose ranks are tasks of one step; the exit status."""
    command = ["srun", f"--nodes={order.nodes}", f"--ntasks-per-node={order.ranks // order.nodes}"]
    command += ["--kill-on-bad-exit=1", "--export=ALL", "--label", sys.executable, "-m", "straylight.job", str(folder)]
    with subprocess.Popen(command) as step:
        while True:
            try:
                return step.wait()
            except KeyboardInterrupt:
                step.send_signal(signal.SIGTERM)  # which it hands on to the ranks, other than a SIGINT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
