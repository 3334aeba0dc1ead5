"""Houses of one neighbourhood among those of another."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from straylight.data.stored import Remote, Stored
from straylight.errors import DataError
from straylight.files.formats import open_file
from straylight.files.recipe import Recipe
from straylight.files.roles import Roles
from straylight.files.source import about, meant
from straylight.files.table import texts
from straylight.rows.batch import Events, Splits
from straylight.rows.origin import Origin

COURSE = "house_prices.csv", ("Neighborhood", "LotArea", "SalePrice", "OverallCond")
REPOSITORY = "aai-institute/tfl-training-practical-anomaly-detection/d7c59c354d90c4ad35df9378edb3394fc7b1bd01"


class HousePrices(Stored):
    """Houses sold in Ames, Iowa, 2006-2010: those of one neighbourhood are nominal, those of another anomalous.

    Reads `house_prices.csv`, four columns of a course on anomaly detection, or Kaggle's `train.csv` with 81 columns
    where that one is missing or has not what is asked for. Text, such as `HouseStyle`, is one-hot encoded. Shape (D,).

    References:
        D. De Cock, Ames, Iowa: alternative to the Boston housing data as an end of semester regression project, J.
        Stat. Educ. 19 (2011), doi:10.1080/10691898.2011.11889627

    Args:
        root: the folder of the file.
        features: columns.
        nominal: the neighbourhood, or neighbourhoods, that are nominal.
        anomalous: the same of anomalous ones, each a kind of its own; houses elsewhere are left out.
        common: see `Stored`.

    Raises:
        DataError: if the file is missing or damaged, or holds no such column or neighbourhood.
    """

    remotes = (
        Remote(
            f"https://media.githubusercontent.com/media/{REPOSITORY}/data/house_prices/house_prices.csv",
            COURSE[0],
            "sha256:be42a4bba9349efd675921851b257b7770ca5318a0207b2e6fe6941da1ac876f",
        ),
        Remote("https://www.kaggle.com/c/house-prices-advanced-regression-techniques/data", "train.csv", None),
    )

    def __init__(
        self,
        *,
        root: str,
        features: Sequence[str] = ("LotArea", "SalePrice", "OverallCond"),
        nominal: str | Sequence[str] = "CollgCr",
        anomalous: str | Sequence[str] = "NoRidge",
        **common: Any,
    ) -> None:
        super().__init__(root=root, **common)
        self.features = tuple(features)
        self.nominal = [nominal] if isinstance(nominal, str) else list(nominal)
        self.anomalous = [anomalous] if isinstance(anomalous, str) else list(anomalous)
        if not self.features:
            raise DataError("data.features must name one column or more.")
        if not (self.nominal and self.anomalous) or set(self.nominal) & set(self.anomalous):
            raise DataError("data.nominal and data.anomalous must each name neighbourhoods, and none of them twice.")
        self.kinds = ("nominal", *self.anomalous)

    @property
    def name(self) -> str:  # type: ignore[override]
        return "house_prices"

    def files(self) -> list[Path]:
        course, kaggle = self.root / COURSE[0], self.root / "train.csv"
        suits = set(self.features) <= set(COURSE[1])
        return [course if suits and (course.is_file() or not kaggle.is_file()) else kaggle]

    def load(self) -> Splits:
        self.require()
        (path,) = self.files()
        # where a number is missing stands NA; where a text says NA, it means none, such as no alley
        table = open_file(path, empty_text=False).table(["Neighborhood", *self.features])
        where = texts(table["Neighborhood"])
        there = sorted(set(where))
        for name in (*self.nominal, *self.anomalous):
            if name not in there:
                raise DataError(
                    f"{self.name}: there is no neighbourhood {name!r} in {path}{meant(name, there)}; it has "
                    f"{', '.join(there)}."
                )
        label = {**dict.fromkeys(self.nominal, 0), **{name: 1 + i for i, name in enumerate(self.anomalous)}}
        rows = np.flatnonzero(np.isin(where, list(label)))
        origin = Origin.of(path, len(table)).take(rows)
        table, where = table.take(rows), where[rows]
        y = np.array([label[name] for name in where])
        places = self.divide(y)
        with about(path):
            recipe = Recipe.fit(
                table, Roles(self.features), places.train, missing=self.missing_values, notice=self.notice
            )
        self.columns = recipe.names
        x = recipe.features([table], self.notice)
        return places.of(Events.of(x, y, meta={"neighborhood": where}, origin=origin))
