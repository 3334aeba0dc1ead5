"""`python -m straylight.launcher.rank CONFIG FOLDER new|resume`: one rank of a job, started by rank 0."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from straylight.errors import StraylightError
from straylight.train import train


def main(config: str, folder: str, start: str) -> None:
    cfg = OmegaConf.load(config)
    assert isinstance(cfg, DictConfig)
    try:
        train(cfg, Path(folder), resume=start == "resume")
    except StraylightError:
        sys.exit(1)  # rank 0 meets the same and says so
    except Exception:
        traceback.print_exc()
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
