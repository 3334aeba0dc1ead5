"""Clusters on loopback for tests: a real Slurm of two nodes, which is started as root where it is installed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SLURM = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "srun", "munged", "munge")
CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=2,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=30
MinJobAge=300
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[2]}] CPUs=2 RealMemory=4000 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=1:00:00 State=UP OverSubscribe=NO PriorityTier=1
PartitionName=urgent Nodes=n[1-2] MaxTime=1:00:00 State=UP OverSubscribe=NO PriorityTier=9 PreemptMode=OFF
"""


def lacking_slurm() -> str | None:
    """Why there is no Slurm here; `None` where it can be started."""
    missing = [name for name in SLURM if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if missing:
        return f"no Slurm: {', '.join(missing)} are not installed"
    return None if os.geteuid() == 0 else "a Slurm of our own is started by root alone"


@contextmanager
def slurm(folder: Path) -> Iterator[Path]:
    """A cluster of the nodes n1 and n2, which are this machine, with two CPUs each; its `slurm.conf`."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    for name in ("state", "spool.n1", "spool.n2"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    key, conf = folder / "munge.key", folder / "slurm.conf"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    conf.write_text(CONF.format(host=socket.gethostname().split(".")[0], folder=folder, ports=_ports()))
    environment = {**os.environ, "PATH": path, "SLURM_CONF": str(conf)}

    def started(*command: str) -> None:
        subprocess.run(command, env=environment, check=True, timeout=60, stdout=subprocess.DEVNULL)

    try:
        files = {"key-file": key, "socket": "munge.socket", "pid-file": "munged.pid", "seed-file": "munge.seed"}
        options = [f"--{option}={folder / name}" for option, name in {**files, "log-file": "munged.log"}.items()]
        started("munged", "--force", *options)
        started("slurmctld")
        for node in ("n1", "n2"):
            started("slurmd", "-N", node)
        asked = ["sinfo", "-h", "-t", "idle", "-o", "%D"]
        until = time.monotonic() + 60
        while subprocess.run(asked, env=environment, capture_output=True, text=True).stdout.strip() != "2":
            assert time.monotonic() < until, (folder / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.1)
        yield conf
    finally:
        with suppress(subprocess.SubprocessError, OSError):
            subprocess.run(["scancel", "-u", "root"], env=environment, timeout=30)
            until = time.monotonic() + 30
            while subprocess.run(["squeue", "-h"], env=environment, capture_output=True).stdout.strip():
                if time.monotonic() > until:
                    break
                time.sleep(0.2)
        for name in ("slurmd.n1.pid", "slurmd.n2.pid", "slurmctld.pid", "munged.pid"):
            with suppress(OSError, ValueError):
                os.kill(int((folder / name).read_text()), signal.SIGTERM)


def _ports() -> tuple[int, int, int]:
    """One for the controller, and two that follow each other for the nodes."""
    for first in range(20000 + os.getpid() % 10000, 60000, 3):
        ports = (first, first + 1, first + 2)
        with suppress(OSError):
            for port in ports:
                with socket.socket() as tried:
                    tried.bind(("", port))
            return ports
    raise AssertionError("no three ports are free")
