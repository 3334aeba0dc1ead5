"""Distributed data-parallel training of any detector."""

from lightning_fabric.plugins.environments import ClusterEnvironment, LightningEnvironment, TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy

from straylight.job.world import world_here
from straylight.stopping import STOP


def environment() -> ClusterEnvironment:
    """How ranks find each other: as `torchrun` says where somebody else started them, and otherwise as we do.

    Lightning itself would look around, and inside any job of Slurm, MPI or LSF take that for the ranks.
    """
    return LightningEnvironment() if world_here() is None else TorchElasticEnvironment()


class DDP(DDPStrategy):
    """Lightning's strategy that lets a detector without parameters pass, which torch's wrapper refuses, and leaves
    signals to us."""

    def configure_ddp(self) -> None:
        if any(p.requires_grad for p in self.model.parameters()):  # type: ignore[union-attr]
            super().configure_ddp()

    def barrier(self, name: str | None = None) -> None:
        """Before every stage, among others: Lightning has taken SIGTERM by then, to broadcast it by ranks of which most
        have had none."""
        if STOP.begun:
            STOP.listen()
        super().barrier(name)
