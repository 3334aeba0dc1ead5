"""What there is to choose, as the heads of YAML files and the docstrings of classes tell it; nothing is imported.

A head is the comment that a config begins with: what it is, and then a line for each of `FIELDS` that says more, such
as `# Cost: one pass of a small network per event.`; what goes on in another line stands two blanks further in.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from straylight.errors import ConfigError
from straylight.groups import FOLDER, choices

#: What a detector's head says of it, in this order; all but the note it must.
FIELDS = ("Family", "Assumes", "Cost", "Good for", "Note", "Example")
#: Families of detectors, in the order in which they are listed; those of one's own come after them.
FAMILIES = (
    "neighbours",
    "density",
    "flows",
    "over-densities",
    "reconstruction",
    "adversarial",
    "one-class",
    "trees",
    "statistics",
    "ensembles",
    "particles",
    "external",
)
#: What a data set's head says: its files below its root, with ` or ` between those of which one will do.
FILES = "Files"
FIELD = re.compile(rf"({'|'.join((*FIELDS, FILES))}): +(.*)")
SETTING = re.compile(r"([A-Za-z_]\w*):(?: +(.*))?$")
#: How a reference begins that is none of the one before: initials, a surname, and a comma or others.
AUTHOR = re.compile(r"(?:[A-Z][a-z]?\.[ -]?)+ ?[^\W\d]\S*(?: [^\W\d]\S+)*(?:,| et al\.)")
DATED = re.compile(r"\b(19|20)\d\d\b|arXiv")


@dataclass(frozen=True)
class Setting:
    """A key of a config, its default as YAML writes it, and what is said of it."""

    key: str
    default: str
    comment: str = ""


@dataclass(frozen=True)
class Entry:
    """A config of a group, by its file.

    Attributes:
        group, name: `detector` and `knn` of `detector=knn`.
        path: the YAML file.
        about: what the head says before its fields.
        fields: what it says in each of `FIELDS`, or of its `FILES`; those that it leaves out are missing.
    """

    group: str
    name: str
    path: Path
    about: str
    fields: dict[str, str]

    @property
    def what(self) -> str:
        """The first sentence.

        Example:
            >>> entry("detector", "knn").what
            'Mean distance to the k nearest training rows, or that to the k-th, exact'
        """
        return re.split(r"\.(?= [A-Z]|$)", self.about, maxsplit=1)[0]

    @property
    def family(self) -> str:
        """Without one it belongs to the others."""
        return self.fields.get("Family", "").rstrip(".") or "others"


def entries(group: str, folders: Sequence[Path] = ()) -> list[Entry]:
    """All configs of a group, here and in more folders of a user's own."""
    return [entry(group, name, folders) for name in choices(group, *folders)]


def entry(group: str, name: str, folders: Sequence[Path] = ()) -> Entry:
    """A config by its name; where folders of a user's own have it too, ours, as Hydra takes it."""
    path = next(p for f in (FOLDER, *folders) if (p := f / group / f"{name}.yaml").is_file())
    about: list[str] = []
    fields: dict[str, str] = {}
    field = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.removeprefix("#").removeprefix(" ")
        if found := FIELD.fullmatch(text):
            field = found[1]
            fields[field] = found[2].strip()
        elif field and text.startswith("  "):
            fields[field] += f" {text.strip()}"
        else:
            about.append(text.strip())
    return Entry(group, name, path, " ".join(about), fields)


def settings(found: Entry, folders: Sequence[Path] = ()) -> list[Setting]:
    """Its keys with their defaults, those of the configs that it extends among them.

    What a YAML file does not say of a key is taken from the docstring of the class.

    Raises:
        ConfigError: if a file is no YAML.

    Example:
        >>> [s.default for s in settings(entry("detector", "nsf")) if s.key in ("scaling", "layers")]
        ['standard', '4']
    """
    keys, target = _settings(found, folders)
    place = written(target)
    said = place.arguments if place else {}
    said = {key: text.partition(", see `")[0].rstrip(".") for key, text in said.items() if len(text) > len("K.")}
    base = FOLDER / found.group / "base.yaml"  # of a group whose configs have keys in common
    common = _lines(base.read_text(encoding="utf-8")) if base.is_file() else {}
    return [replace(s, comment=s.comment or said.get(s.key) or common.get(s.key, ("", ""))[1]) for s in keys.values()]


def target_of(found: Entry, folders: Sequence[Path] = ()) -> str:
    """What is built by it, such as `straylight.detectors.KNN`; empty if it does not say."""
    return _settings(found, folders)[1]


def _settings(found: Entry, folders: Sequence[Path]) -> tuple[dict[str, Setting], str]:
    import yaml

    text = found.path.read_text(encoding="utf-8")
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{found.path} is no config: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{found.path} is no config: it has no keys.")
    keys: dict[str, Setting] = {}
    target = ""
    for default in values.pop("defaults", []):
        if isinstance(default, dict):
            for place, name in default.items():
                group, _, key = str(place).strip("/").partition("@")
                comment = f"{group}@{found.group}.{key}=NAME takes another {group}"
                keys[key] = Setting(key, str(name), comment)
        elif default not in ("_self_", found.name) and default in choices(found.group, *folders):
            more, target = _settings(entry(found.group, default, folders), folders)
            keys |= more
    target = str(values.pop("_target_", target))
    lines = _lines(text)
    for key, value in values.items():
        if key in keys and isinstance(value, dict) and all(k.startswith("_") for k in value):
            continue  # how what a default names is built
        default, comment = lines.get(key, ("", ""))
        if not default:
            default = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).split("\n...")[0]
        inherited = keys[key].comment if key in keys else ""
        if inherited.startswith("or "):  # another default than this one
            inherited = ""
        keys[key] = Setting(key, default.strip(), comment or inherited)
    return keys, target


def _lines(text: str) -> dict[str, tuple[str, str]]:
    """Values and comments of the keys of a YAML file, as they stand in the line of each."""
    found = {}
    for line in text.splitlines():
        if match := SETTING.match(line):
            value, _, comment = (match[2] or "").partition("# ")
            found[match[1]] = value.strip(), comment.strip()
    return found


@dataclass(frozen=True)
class Written:
    """A class as it stands in its file."""

    path: Path
    tree: ast.ClassDef

    @property
    def docstring(self) -> str:
        """What it says of itself; empty if nothing."""
        return ast.get_docstring(self.tree) or ""

    @property
    def module(self) -> str:
        """The file's name, without its ending."""
        return self.path.stem

    @property
    def papers(self) -> list[str]:
        """The references in its docstring."""
        return references(self.docstring)

    @property
    def arguments(self) -> dict[str, str]:
        """What its docstring and those of the classes that it is derived from say of each argument."""
        said: dict[str, str] = {}
        names: list[str] = []
        for line in section(self.docstring, "Args").splitlines():
            if found := re.match(r"([\w, ]+): +(.*)", line):
                names = [name.strip() for name in found[1].split(",")]
                said |= dict.fromkeys(names, found[2])
            else:
                said |= {name: f"{said[name]} {line.strip()}" for name in names}
        said = {name: text for name, text in said.items() if not text.startswith("see ")}
        for base in self.tree.bases:
            if isinstance(base, ast.Name):
                parent = _find(base.id, [self.path, *sorted(self.path.parent.glob("*.py"))])
                said = (parent.arguments if parent else {}) | said
        return said


def written(target: str) -> Written | None:
    """The class that a config names by `_target_`, found without importing it; `None` if it is not to be found.

    Example:
        >>> [paper.rpartition(", ")[2] for paper in written("straylight.detectors.AAE").papers]
        ['arXiv:1511.05644']
    """
    module, _, name = target.rpartition(".")
    return _find(name, _files(module)) if module else None


def references(docstring: str) -> list[str]:
    """Its references, one each, however many lines they take there."""
    found: list[str] = []
    for line in section(docstring, "References").splitlines():
        if not found or (AUTHOR.match(line) and DATED.search(found[-1])):
            found.append(line.strip())
        else:
            found[-1] += f" {line.strip()}"
    return found


def section(docstring: str, name: str) -> str:
    """The lines below a heading of a docstring, without their indentation.

    Example:
        >>> section("A class.\\n\\nArgs:\\n    k: neighbours.\\n\\nRaises:\\n    Nothing.", "Args")
        'k: neighbours.'
    """
    found = re.search(rf"^{name}:\n((?:[ \t]+.*\n?|\n)*)", docstring, re.MULTILINE)
    return inspect.cleandoc("\n" + found[1]).strip() if found else ""


def _files(module: str) -> list[Path]:
    """The files in which a module's names may be written: its own, or all of the package that it is."""
    top, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(top)  # a name without dots is looked for, and not imported
    except ValueError:
        spec = None
    if spec is None or not (spec.origin or spec.submodule_search_locations):
        return []
    place = Path(next(iter(spec.submodule_search_locations or ()), spec.origin or ""))
    for name in inner:
        place = place / name if (place / name).is_dir() else place / f"{name}.py"
    return sorted(place.glob("*.py")) if place.is_dir() else [p for p in [place] if p.is_file()]


def _find(name: str, files: Sequence[Path]) -> Written | None:
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
            nodes = ast.parse(text).body if f"class {name}" in text else []
        except (SyntaxError, ValueError):  # a file of a user's own, of which Python will say what is wrong
            continue
        for node in nodes:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return Written(path, node)
    return None
