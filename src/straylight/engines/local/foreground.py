"""A single run of several processes, waited for here.

Lightning would start ranks with the parent's command line. Here they are started as `torchrun` would start them, by a
process that does nothing else, so that it sees which one dies, and Lightning finds them in the environment.
"""

import os
from multiprocessing.connection import wait

from straylight.engines.local import pool
from straylight.engines.local.child import Errand
from straylight.folder import RunFolder
from straylight.job.order import Order
from straylight.result import Result
from straylight.sweep.outcome import settled

TICK_S = 0.2
GRACE_S = 20.0  # for ranks that are interrupted to leave a checkpoint


def run_ranks(order: Order, folder: RunFolder) -> Result:
    """Run the ranks of a job to their end; what `result.json` says.

    The first one prints here, the others into `output.1.log`, ... in the folder. Ctrl-C interrupts all of them, a
    second one ends them.
    """
    pool.warm()
    folder.result.unlink(missing_ok=True)  # of before: ranks that die at once say nothing
    store, places = pool.meeting_place(order.ranks)
    errands = [
        Errand(
            folder=str(folder),
            rank=rank,
            environment={**os.environ, **place},
            threads=None,
            log=str(folder.log(rank)) if rank else None,
            keep=False,
            watched=True,
        )
        for rank, place in enumerate(places)
    ]
    processes = pool.Processes(errands, patience_s=order.config["trainer"].get("timeout_s"), store=store)
    stopped = False
    try:
        while True:
            try:
                if processes.look():
                    break
                wait(processes.waited_for, TICK_S)
            except KeyboardInterrupt:
                if stopped:
                    processes.kill()
                else:
                    processes.stop(GRACE_S)
                stopped = True
        return settled(folder, order.fields, processes.ended, stopped=stopped)
    finally:
        processes.close()
