"""Run the experiments that ship and write what they reached into the heads of their YAML files and into docs/.

    python tests/benchmarks/experiments.py [NAME ...] --data PATH [--out outputs/experiments] [--write-only]

Each is the command that stands in the head of `conf/experiment/NAME.yaml`, with seeds 0, 1 and 2 unless it sweeps over
seeds of its own, into a folder of its own below OUT; one that is there is resumed. Without names, all but sweeps.
Then the block that begins with `# Measured` is written anew in each head whose runs all ended well; what did not come
to its end is named and left as it is. So are the tables in docs/experiments.md, from the heads and, of digits, from the
runs of `sweep/mnist_ruff`, and the numbers in that of docs/detectors.md, from the runs of `sweep/digits_contaminated`,
`sweep/moons` and `sweep/adbench`, where these came to their ends.
Minutes and latencies are those of this machine.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from straylight.folder import SweepFolder
from straylight.report.compared import TRUTH, by_setting, over_sets
from straylight.report.details import large
from straylight.report.leaderboard import Groups, Row, Spread, grouped, rows

PROJECT = Path(__file__).parents[2]
HEADS = PROJECT / "conf" / "experiment"
WIDTH = 120
COLUMNS = {"digits_contaminated": -4, "moons": -3}  # of the table of detectors, each with a sweep of its name
TIMED = "digits_contaminated"  # one event of it
MANY = 4  # data sets, from which on means over them are told
Run = Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("outputs/experiments"))
    parser.add_argument("--docs", type=Path, default=PROJECT / "docs", help="with experiments.md and detectors.md")
    parser.add_argument("--heads", type=Path, default=HEADS)
    parser.add_argument("--write-only", action="store_true", help="run nothing; write what there is")
    args = parser.parse_args()
    names = args.names or sorted(path.stem for path in args.heads.glob("*.yaml"))
    left = []
    for name in names:
        folder = args.out / name.replace("/", "_")
        if not args.write_only:
            run(name, args.heads, args.data, folder)
        if results := ended(folder):
            path = args.heads / f"{name}.yaml"
            path.write_text(with_block(path.read_text(), block(results, name.startswith("sweep/"))))
            print(f"{name}: {len(results)} runs")
        else:
            left.append(name)
    rewrite(args.docs / "experiments.md", "experiments", lambda _: experiments_table(args.heads))
    own = [result for name in COLUMNS for result in ended(args.out / f"sweep_{name}")]
    many = ended(args.out / "sweep_adbench")
    rewrite(args.docs / "detectors.md", "detectors", lambda lines: with_numbers(lines, own, many))
    if digits := ended(args.out / "sweep_mnist_ruff"):
        rewrite(args.docs / "experiments.md", "mnist_ruff", lambda _: digits_table(digits))
    if left:
        sys.exit(f"Not all runs ended well, and nothing was written, of: {', '.join(left)}")


def run(name: str, heads: Path, data: Path, folder: Path) -> None:
    """The experiment's command, which is resumed where its folder is there."""
    own = yaml.safe_load((heads / f"{name}.yaml").read_text()).get("hydra", {}).get("sweeper", {}).get("params", {})
    command = [sys.executable, "-m", "straylight", "train", "-m"]
    if (folder / "multirun.yaml").is_file():
        command.append(f"resume={folder}")
    else:
        command += [f"experiment={name}", f"paths.data={data}", f"hydra.sweep.dir={folder}"]
        command += [] if "seed" in own else ["seed=0,1,2"]
    print(" ".join(command), flush=True)
    subprocess.run(command)


def ended(folder: Path) -> list[Run]:
    """The runs of a sweep at its end, if all ended well and every detector has all seeds on every data set, or none."""
    table = folder / "leaderboard.csv"  # the last that a sweep writes
    results = SweepFolder(folder).results() if table.is_file() else []
    since = [result for result in results if written(result) > table.stat().st_mtime]  # it goes on
    groups = grouped(results)
    seeds = {key: len(runs) for key, runs in (by_setting(groups) if hunts(results) else groups).items()}
    detectors, sets = {detector for _, detector in seeds}, {data for data, _ in seeds}
    whole = len(seeds) == len(detectors) * len(sets) and len(set(seeds.values())) == 1
    return results if whole and not since and all(result["status"] == "ok" for result in results) else []


def hunts(results: Iterable[Run]) -> bool:
    """Whether all of a sweep is over data with a resonance."""
    return all(result.get("bump") for result in results)


def written(result: Run) -> float:
    """When, in seconds since the epoch."""
    return (Path(result["folder"]) / "result.json").stat().st_mtime


# the heads


def block(results: Sequence[Run], swept: bool) -> list[str]:
    """What stands in the head: what was reached, and what it cost."""
    table = rows(results)
    sets = list(dict.fromkeys(row.data for row in table))
    seeds = sorted({int(result["seed"]) for result in results})
    told = f"{len(seeds)} seeds" if len(seeds) > 3 else f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    where = {"cpu": "one CPU core"}.get(str(results[0].get("device")), str(results[0].get("device")))
    minutes = sum(result["duration_s"] for result in results) / 60
    lines = [f"# Measured by tests/benchmarks/experiments.py, {told}, {where} a run; mean and range over seeds:"]
    if swept and len(sets) >= MANY:
        lines[0] = lines[0].replace("; mean and range over seeds", "")
        lines += over_many(results, table, sets)
    elif swept and hunts(results):
        lines += over_bumps(by_setting(grouped(results)))
    elif swept:
        for data in sets:
            own = [f"{row.detector} {spread(row.numbers['auroc'])}" for row in table if row.data == data]
            lines += filled(f"{data}: " + ", ".join(own))
    else:
        lines += [line for row in table for line in filled(one(row, results))]
    if swept:
        since = elapsed(results)
        paused = since > minutes + 1  # or run in parts
        last = "in parts or with a pause" if paused else f"{since:.1f} from first to last"
        lines += filled(f"{len(results)} runs, {minutes:.1f} minutes together, {last}.")
    else:
        lines += filled(f"{minutes / len(results):.1f} minutes a run.")
    if any("standin" in data for data in sets):
        lines += filled("The data were a stand-in in the layout of ADC2021: these are not results on ADC2021.")
    return lines


def one(row: Row, results: Iterable[Run]) -> str:
    """What an experiment of one detector on one data set reached, with each kind of anomaly where there are several."""
    runs = [result["metrics"] for result in results]
    told = f"AUROC {spread(row.numbers['auroc'])}, AP {spread(row.numbers['ap'])}"
    kinds = [name for name in runs[0] if name.startswith("test/auroc/")]
    each = [f"{n.removeprefix('test/auroc/')} {spread(Spread.of(r.get(n) for r in runs))}" for n in kinds]
    return told + (f"; AUROC of {', '.join(each)}" if 1 < len(each) < 9 else "") + "."


def over_many(results: Sequence[Run], table: Sequence[Row], sets: Sequence[str]) -> list[str]:
    """Means over data sets that all detectors have, with average ranks."""
    compared = over_sets(grouped(results))
    if compared is None:
        return []
    found, names = compared
    mean = {n: [row.numbers["auroc"].mean or 0.0 for row in table if row.detector == n] for n in names}
    ranked = sorted(zip(found.average_ranks.tolist(), names, strict=True))
    told = ", ".join(f"{n} {sum(mean[n]) / len(sets):.3f} ({rank:.1f})" for rank, n in ranked)
    return filled(f"mean AUROC over {len(sets)} data sets (average rank): {told}.")


def over_bumps(groups: Groups) -> list[str]:
    """Largest significance improvements within each setting of the data, the best detector first.

    In units of the optimum's, where that is known of all runs.
    """
    runs = [run for of in groups.values() for run in of]
    known = all("test/optimum_fraction" in run["metrics"] for run in runs)
    metric, told = ("test/optimum_fraction", ", in units of the optimum's") if known else ("test/max_sic", "")
    truth = "; * has read which events are signal" if any(run.get("truth") for run in runs) else ""
    lines = filled(f"Largest significance improvement{told}{truth}.")
    for data in dict.fromkeys(data for data, _ in groups):
        own = {
            name.removesuffix(TRUTH) + "*" * name.endswith(TRUTH): Spread.of(run["metrics"].get(metric) for run in of)
            for (set_, name), of in groups.items()
            if set_ == data
        }
        best = sorted(own, key=lambda name: -(own[name].mean or 0.0))
        lines += filled(f"{data}: " + ", ".join(f"{name} {spread(own[name])}" for name in best))
    return lines


def elapsed(results: Sequence[Run]) -> float:
    """Minutes from the first job's start to the last one's end."""
    begun = min((Path(result["folder"]) / ".hydra" / "config.yaml").stat().st_mtime for result in results)
    return (max(map(written, results)) - begun) / 60


def spread(value: Spread) -> str:
    if value.mean is None:
        return "n.r."
    low, high = f"{value.low:.3f}", f"{value.high:.3f}"
    return f"{value.mean:.3f}" + (f" ({low}-{high})" if low != high else "")


def filled(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="#   ", subsequent_indent="#   ", break_on_hyphens=False)


def with_block(text: str, lines: Sequence[str]) -> str:
    """A YAML file whose head has these lines in place of its block of measured numbers, or at its end.

    The block begins with `# Measured` or `# Not measured`, and its other lines are indented.

    Example:
        >>> with_block("# Title\\n# Measured before\\n#   0.5\\n# Published 0.9\\nkey: 1\\n", ["# Measured", "#   0.6"])
        '# Title\\n# Measured\\n#   0.6\\n# Published 0.9\\nkey: 1\\n'
    """
    given = text.splitlines()
    end = next(i for i, line in enumerate(given) if not line.startswith("#"))
    start = next((i for i, line in enumerate(given[:end]) if line.startswith(("# Measured", "# Not measured"))), None)
    if start is None:
        start = stop = end
    else:
        stop = next(i for i in range(start + 1, end + 1) if not given[i].startswith("#   "))
    return "\n".join([*given[:start], *lines, *given[stop:]]) + "\n"


# the tables in docs/


def rewrite(page: Path, name: str, change: Callable[[list[str]], list[str]]) -> None:
    """Change what stands between the two marks of a page."""
    page.write_text(between(page.read_text(), name, change))


def between(text: str, name: str, change: Callable[[list[str]], list[str]]) -> str:
    """The text with the lines between its two marks changed.

    Example:
        >>> between("a\\n<!-- t -->\\nold\\n<!-- /t -->\\nb", "t", lambda lines: [*lines, "new"])
        'a\\n<!-- t -->\\nold\\nnew\\n<!-- /t -->\\nb'
    """
    lines = text.split("\n")
    if not {f"<!-- {name} -->", f"<!-- /{name} -->"} <= set(lines):
        raise ValueError(f"there are no marks <!-- {name} --> and <!-- /{name} -->")
    first, last = lines.index(f"<!-- {name} -->") + 1, lines.index(f"<!-- /{name} -->")
    return "\n".join([*lines[:first], *change(lines[first:last]), *lines[last:]])


def experiments_table(heads: Path) -> list[str]:
    """A line for each experiment that was measured, from its head."""
    table = ["| experiment | what | AUROC | AP | minutes a run | published |", "|---|---|---|---|---|---|"]
    for path in sorted(heads.glob("*.yaml")):
        head = " ".join(line.strip("# ") for line in path.read_text().splitlines()[1:] if line.startswith("#"))
        numbers = re.search(r"AUROC (\d[^,;]*), AP (\d(?:\.\d+)?)", head)
        minutes, published = re.search(r"([\d.]+) minutes a run", head), re.search(r"Published ([\d.]+\d)", head)
        if numbers:
            what = head.split(" straylight train")[0].split(". ")[0].rstrip(".")
            table.append(
                f"| `{path.stem}` | {what} | {numbers[1]} | {numbers[2]} | {minutes[1] if minutes else ''} | "
                f"{published[1] if published else ''} |"
            )
    return table


def digits_table(results: Sequence[Run]) -> list[str]:
    """A line for each detector with its AUROC for each nominal digit, in percent, and their mean; the best first."""
    found: dict[str, dict[str, float]] = {}
    for row in rows(results):
        found.setdefault(row.detector, {})[row.data] = 100 * (row.numbers["auroc"].mean or 0.0)
    sets = sorted({data for of in found.values() for data in of})
    mean = {detector: sum(of.values()) / len(of) for detector, of in found.items()}
    head = ["detector", *(data.rpartition("_")[2] for data in sets), "mean"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for detector in sorted(found, key=lambda name: -mean[name]):
        each = [f"{found[detector][data]:.1f}" for data in sets]
        lines.append(f"| `{detector}` | {' | '.join(each)} | {mean[detector]:.1f} |")
    return lines


def with_numbers(lines: Sequence[str], own: Sequence[Run], adbench: Sequence[Run]) -> list[str]:
    """The table of detectors with its last four columns as measured; cells without runs stay."""
    table = {(row.data, row.detector): row.numbers for row in rows(own)}
    over: dict[str, list[float]] = {}
    for row in rows(adbench):
        over.setdefault(row.detector, []).append(row.numbers["auroc"].mean or 0.0)
    changed = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        name = cells[0].strip("`")
        for data, place in COLUMNS.items():
            if (data, name) in table:
                cells[place] = spread(table[data, name]["auroc"])
        if name in over:
            cells[-2] = f"{sum(over[name]) / len(over[name]):.3f}"
        if (TIMED, name) in table:
            cells[-1] = large(table[TIMED, name]["p50_us"].mean)
        changed.append(line if line.startswith("|---") else f"| {' | '.join(cells)} |")
    return changed


if __name__ == "__main__":
    main()
