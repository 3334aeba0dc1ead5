"""A resonance in dijets: high-level features of the LHC Olympics' R&D data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from straylight.data.steps.overlap import found_in
from straylight.data.steps.regions import Region, chosen, inside, limits
from straylight.data.stored import Remote, Stored
from straylight.errors import DataError
from straylight.rows.batch import Events, Splits
from straylight.rows.mapped import CHUNK
from straylight.rows.origin import Origin
from straylight.rows.resonance import Resonance, Truth

SOURCE = "https://github.com/HEPML-AnomalyDetection/CATHODE/raw/3d4c0c5d4bd940723cb9de486998ed80ad472b71"
CHECKSUMS = {
    "innerdata_train": "8396ee7d5ced347cf533bd382ff4b0e5cdba8a02a5eb7273a96af0b819045bd2",
    "innerdata_val": "c5609908798654f1d9d9210f5fbd6aeb3fa1b7110c9e4a277c58c0b4557b089e",
    "innerdata_test": "413159262fd166ced866414cb7b9702152ceda35ae0f08f269182e07389e1755",
    "innerdata_extrasig_train": "3756386db6a21fb1234e6496ce530d4d4ea2fcfe30c022cfb71b8e94cf038829",
    "innerdata_extrasig_val": "de1ab800b2b6a99a8f9f04207be4f15d2671b9a0c153e5d20ffe3fcfd3e55ca1",
}
COLUMNS = 6  # mjj, mj1, mj2 - mj1, tau21 of both jets, and whether it is signal
LOW, HIGH = 3.3, 3.7  # TeV


class LHCO(Stored):
    """Dijets from a resonance W' -> XY among those of QCD, by jet masses and subjettiness; the dijet mass is context.

    Features are the lighter jet's mass mj1 [TeV], the difference of both masses [TeV], and tau21 of the lighter and of
    the heavier jet; the context is mjj [TeV]. Training rows are those of the signal region, 3.3 to 3.7 TeV, as found,
    0.7 % of them signal (`contamination=0` takes it out), or of the sidebands. The tested rows are always those of the
    signal region that were made for it, 40,000 of background and 20,000 of signal; more signal is in reserve.

    A narrower signal region within 3.3 to 3.7 TeV leaves what is outside it to the sidebands.

    References:
        G. Kasieczka et al., The LHC Olympics 2020, Rep. Prog. Phys. 84 (2021) 124201, arXiv:2101.08320
        A. Hallin et al., Classifying anomalies through outer density estimation (CATHODE), Phys. Rev. D 106 (2022)
        055006, arXiv:2109.00546: the files, as its authors prepared them

    Args:
        root: the folder that holds `separated_data/`.
        region: where training and validation rows are from: `signal`, `sidebands`, or `both`.
        signal_region: limits in mjj [TeV], within those of the files.
        common: see `Stored`; the fractions have no use here.

    Raises:
        DataError: if a file is missing, damaged, or holds other columns, mjj lies elsewhere, or a region holds no rows.
    """

    kinds = ("nominal", "signal")
    columns = ("mj1", "mj2 - mj1", "tau21 of jet 1", "tau21 of jet 2")
    remotes = tuple(
        Remote(f"{SOURCE}/separated_data/{name}.npy", f"separated_data/{name}.npy", f"sha256:{checksum}")
        for name, checksum in CHECKSUMS.items()
    )

    def __init__(
        self, *, root: str, region: Region = "signal", signal_region: Sequence[float] = (LOW, HIGH), **common: Any
    ) -> None:
        super().__init__(root=root, **common)
        self.region = region
        self.resonance: Resonance = Resonance.within(signal_region, "mjj [TeV]")
        if self.resonance.low < LOW or self.resonance.high > HIGH:
            raise DataError(
                f"data.signal_region={limits(self.resonance)} must lie within [{LOW},{HIGH}] TeV, where the files are "
                "divided, and the test has no other rows."
            )

    def files(self) -> list[Path]:
        inner = list(CHECKSUMS) if "inner" in self._sources else [n for n in CHECKSUMS if "_test" in n or "extra" in n]
        outer = ["outerdata_train", "outerdata_val"] if "outer" in self._sources else []
        return [self._path(name) for name in (*inner, *outer)]

    def load(self) -> Splits:
        self.require()
        train, val = (Events.cat(*(self._rows(f"{s}data_{part}") for s in self._sources)) for part in ("train", "val"))
        reserve = Events.cat(self._rows("innerdata_extrasig_train"), self._rows("innerdata_extrasig_val"))
        return Splits(
            train=self._of(train, self.region),
            val=self._of(val, self.region),
            test=self._of(self._rows("innerdata_test"), "signal"),
            reserve=self._of(reserve, "signal") if self.region == "signal" else reserve,
        )

    def truth(self) -> Truth:
        """Background among the validation rows of the signal region, and the signal in reserve that does not train."""
        train, val, _, reserve = self.splits
        if self.region == "sidebands":
            if not (path := self._path("innerdata_val")).is_file():
                raise self._absent([path])
            val = self._rows("innerdata_val")
        if self.contamination:
            there = found_in(reserve.x.split(CHUNK), train.x.split(CHUNK))
            reserve = reserve.take(np.flatnonzero(~there))
        val = val.take(np.flatnonzero(val.y.numpy() == 0))
        self.notice(
            "the background that validates trains the yardstick too: thresholds are set on scores of models that have "
            "not seen the row, one for each, and the test's are the mean of all models."
        )
        return Truth(self._of(val, "signal"), self._of(reserve, "signal"))

    @property
    def _sources(self) -> tuple[str, ...]:
        """Which files training and validation rows are of."""
        whole = (self.resonance.low, self.resonance.high) == (LOW, HIGH)
        return {
            "signal": ("inner",),
            "sidebands": ("outer",) if whole else ("inner", "outer"),
            "both": ("inner", "outer"),
        }[self.region]

    def _of(self, rows: Events, region: Region) -> Events:
        """Those that are where the region wants them."""
        if region == "sidebands" and "inner" not in self._sources:
            return rows
        there = chosen(inside(rows.context, self.resonance, region, self.name), region)
        return rows if len(there) == len(rows) else rows.take(there)

    def _path(self, name: str) -> Path:
        return self.root / "separated_data" / f"{name}.npy"

    def _rows(self, name: str) -> Events:
        path = self._path(name)
        try:
            with path.open("rb") as file:
                rows = np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:  # a damaged file fails in many ways
            raise DataError(f"{path} cannot be read as a .npy file of numbers ({type(error).__name__}).") from error
        if rows.ndim != 2 or rows.shape[1] != COLUMNS or rows.dtype.kind != "f":
            raise DataError(f"{path} must hold numbers of shape (N, {COLUMNS}), not {rows.dtype} of {rows.shape}.")
        rows = rows.astype(np.float64)
        mjj, label = rows[:, 0], rows[:, -1]
        if not np.isin(label, (0, 1)).all():
            raise DataError(f"{path} must label background 0 and signal 1 in its last column.")
        inside = (mjj >= LOW) & (mjj <= HIGH)
        if (inside != name.startswith("inner")).any():
            wrong = int((inside != name.startswith("inner")).sum())
            where = "outside" if name.startswith("inner") else "inside"
            raise DataError(f"{path}: rows with mjj {where} {LOW} to {HIGH} TeV do not belong there ({wrong} rows).")
        return Events.of(rows[:, 1:-1], label.astype(np.int64), context=rows[:, :1], origin=Origin.of(path, len(rows)))
