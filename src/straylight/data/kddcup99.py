"""Connections to a network under attack: the KDD Cup of 1999."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from straylight.data.stored import Remote, Stored
from straylight.errors import DataError
from straylight.files.recipe import Recipe
from straylight.files.roles import Roles
from straylight.files.source import about
from straylight.files.table import texts
from straylight.rows.batch import Events, Splits
from straylight.rows.origin import Origin

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "kddcup.data_10_percent.gz"
TEXT = ("protocol_type", "service", "flag")
RATES = [
    "serror_rate",
    "srv_serror_rate",
    "rerror_rate",
    "srv_rerror_rate",
    "same_srv_rate",
    "diff_srv_rate",
    "srv_diff_host_rate",
    "dst_host_same_srv_rate",
    "dst_host_diff_srv_rate",
    "dst_host_same_src_port_rate",
    "dst_host_srv_diff_host_rate",
    "dst_host_serror_rate",
    "dst_host_srv_serror_rate",
    "dst_host_rerror_rate",
    "dst_host_srv_rerror_rate",
]
COLUMNS = [
    "duration",
    "protocol_type",
    "service",
    "flag",
    "src_bytes",
    "dst_bytes",
    "land",
    "wrong_fragment",
    "urgent",
    "hot",
    "num_failed_logins",
    "logged_in",
    "num_compromised",
    "root_shell",
    "su_attempted",
    "num_root",
    "num_file_creations",
    "num_shells",
    "num_access_files",
    "num_outbound_cmds",
    "is_host_login",
    "is_guest_login",
    "count",
    "srv_count",
    "serror_rate",
    "srv_serror_rate",
    "rerror_rate",
    "srv_rerror_rate",
    "same_srv_rate",
    "diff_srv_rate",
    "srv_diff_host_rate",
    "dst_host_count",
    "dst_host_srv_count",
    "dst_host_same_srv_rate",
    "dst_host_diff_srv_rate",
    "dst_host_same_src_port_rate",
    "dst_host_srv_diff_host_rate",
    "dst_host_serror_rate",
    "dst_host_srv_serror_rate",
    "dst_host_rerror_rate",
    "dst_host_srv_rerror_rate",
]
LOGGED = ("duration", "src_bytes", "dst_bytes")
ATTACKS = {
    "dos": "back land neptune pod smurf teardrop",
    "probe": "ipsweep nmap portsweep satan",
    "r2l": "ftp_write guess_passwd imap multihop phf spy warezclient warezmaster",
    "u2r": "buffer_overflow loadmodule perl rootkit",
}
DRAWN = 3377  # attacks in SA


class KDDCup99(Stored):
    """Simulated network connections, 10 percent of them: normal ones, and 22 attacks of four kinds.

    The kinds are those of the cup: denial of service, probing, remote to local, user to root. Subsets are
    scikit-learn's, which for all but `SA` and `all` keep connections that are logged in:

        http, smtp: one service; log(x + 0.1) of duration, src_bytes and dst_bytes. Shape (3,).
        SF: the same and the service. Shape (D,), as for the others.
        SA: every normal connection and 3,377 attacks drawn by seed, with replacement; all 41 columns.
        all: every connection; all 41 columns.

    Text is one-hot encoded with the categories of training rows, so that D depends on the seed. The file holds many
    equal rows, and SA draws some twice: most attacks have twins in the test, and the run's record says how many test
    rows, nearly all of them normal, stand in training too. What else is wrong with the data is told by Tavallaee.

    References:
        S. Hettich, S. D. Bay, The UCI KDD archive, KDD Cup 1999 data, kdd.ics.uci.edu
        M. Tavallaee, E. Bagheri, W. Lu, A. A. Ghorbani, A detailed analysis of the KDD CUP 99 data set, CISDA 2009,
        doi:10.1109/CISDA.2009.5356528

    Args:
        root: the folder of `kddcup.data_10_percent.gz`.
        subset: see above.
        common: see `Stored`.

    Raises:
        DataError: if the file is missing or damaged, or holds an attack that is not of the cup.
    """

    remotes = (
        Remote(
            "https://ndownloader.figshare.com/files/5976042",
            FILE,
            "sha256:8045aca0d84e70e622d1148d7df782496f6333bf6eb979a1b0837c42a9fd9561",
        ),
    )

    def __init__(
        self, *, root: str, subset: Literal["http", "smtp", "SA", "SF", "all"] = "http", **common: Any
    ) -> None:
        super().__init__(root=root, **common)
        if subset not in ("http", "smtp", "SA", "SF", "all"):
            raise DataError(f"data.subset must be http, smtp, SA, SF or all, not {subset!r}.")
        self.subset = subset

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"kddcup99_{self.subset}"

    @property
    def fetched_as(self) -> str:
        return "kddcup99"

    def files(self) -> list[Path]:
        return [self.root / FILE]

    def load(self) -> Splits:
        self.require()
        table, attack, origin = self._chosen()
        kind = {name: kind for kind, names in ATTACKS.items() for name in names.split()}
        if strange := set(attack) - set(kind) - {"normal"}:
            raise DataError(f"{self.root / FILE} holds an attack {min(strange)!r}, which is not of the KDD Cup.")
        present = {kind[name] for name in set(attack) - {"normal"}}
        self.kinds = ("nominal", *(name for name in ATTACKS if name in present))
        number = {"normal": 0, **{name: self.kinds.index(kind[name]) for name in kind if kind[name] in present}}
        y = np.array([number[name] for name in attack])
        meta = {"attack": attack, **({"service": texts(table["service"])} if "service" in table.column_names else {})}
        places = self.divide(y)
        with about(self.root / FILE):
            recipe = Recipe.fit(
                table, Roles(tuple(table.column_names)), places.train, missing=self.missing_values, notice=self.notice
            )
        self.columns = recipe.names
        x = recipe.features([table], self.notice)
        return places.of(Events.of(x, y, meta=meta, origin=origin))

    def _chosen(self) -> tuple[pa.Table, NDArray, Origin]:
        """The subset's columns, each row's attack without its full stop, `(N,)`, and where the rows come from."""
        import pyarrow as pa
        import pyarrow.compute as pc

        table = _read(self.root / FILE)
        origin = Origin.of(self.root / FILE, len(table))
        if self.subset == "SA":
            normal = pc.equal(table["attack"], "normal.").to_numpy()
            attacks = np.flatnonzero(~normal)
            if not len(attacks):
                raise DataError(f"{self.root / FILE} holds no attacks, of which SA draws {DRAWN:,}.")
            drawn = np.random.RandomState(self.seed).randint(0, len(attacks), DRAWN)
            rows = np.concatenate([np.flatnonzero(normal), attacks[drawn]])
            table, origin = table.take(rows), origin.take(rows)
        elif self.subset != "all":
            wanted = pc.equal(table["logged_in"], 1)
            if self.subset != "SF":
                wanted = pc.and_(wanted, pc.equal(table["service"], self.subset))
            table, origin = table.filter(wanted), origin.take(np.flatnonzero(wanted.to_numpy()))
            chosen = [*LOGGED, *(["service"] if self.subset == "SF" else []), "attack"]
            table = table.select(sorted(chosen, key=[*COLUMNS, "attack"].index))
            for name in LOGGED:
                logarithm = pc.ln(pc.add(pc.cast(table[name], pa.float64()), 0.1))
                table = table.set_column(table.column_names.index(name), name, logarithm)
        attack = np.array([name.rstrip(".") if name else name for name in texts(table["attack"])], dtype=object)
        return table.drop_columns("attack"), attack, origin


def _read(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv

    kinds = {name: pa.string() if name in TEXT else pa.float64() if name in RATES else pa.int64() for name in COLUMNS}
    try:
        table = pyarrow.csv.read_csv(
            pa.input_stream(path, compression="gzip"),
            pyarrow.csv.ReadOptions(column_names=[*COLUMNS, "attack"]),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={**kinds, "attack": pa.string()}, null_values=[], strings_can_be_null=False
            ),
        )
    except (pa.ArrowException, OSError) as error:
        said = " ".join(str(error).split()).replace(". ", ", ").rstrip(".")[:200]
        raise DataError(f"{path} cannot be read as the KDD Cup's table of 42 columns ({said}).") from error
    if not table.num_rows:
        raise DataError(f"{path} holds no rows.")
    return table
