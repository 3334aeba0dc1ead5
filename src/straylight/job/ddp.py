"""Distributed data-parallel training of any detector."""

from pytorch_lightning.strategies import DDPStrategy


class DDP(DDPStrategy):
    """Lightning's strategy that lets a detector without parameters pass, which torch's wrapper refuses."""

    def configure_ddp(self) -> None:
        if any(p.requires_grad for p in self.model.parameters()):  # type: ignore[union-attr]
            super().configure_ddp()
