"""Figures of a run as files: which were drawn of what, and whether they still show it."""

import io
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from straylight.atomic import replacing
from straylight.callbacks.material import Material
from straylight.callbacks.scored import said
from straylight.folder import RunFolder
from straylight.report.choice import NAMES, Only, each
from straylight.stopping import STOP

log = logging.getLogger(__name__)
Shown = Callable[[str, bytes, int, int], None]


@dataclass
class Drawn:
    """Names of figures that were drawn, and of those that do not apply; why others were not."""

    names: list[str] = field(default_factory=list)
    none: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def result(self) -> dict[str, object]:
        """What a record says of them."""
        found: dict[str, object] = {"figures": sorted(self.names, key=NAMES.index)}
        if self.none:
            found["figures_none"] = sorted(self.none, key=NAMES.index)
        return {**found, "figures_failed": self.failed} if self.failed else found


def draw(
    material: Material,
    only: Only,
    folder: Path,
    dpi: int,
    *,
    marks: Mapping[str, str],
    have: Collection[str] = (),
    precision: Callable[[], AbstractContextManager] = nullcontext,
    show: Shown = lambda name, png, width, height: None,
) -> Drawn:
    """Draw figures into `FOLDER/NAME.png`; one that fails is reported, and the others are drawn.

    Args:
        material: what they are drawn from.
        only: see `straylight.report.choice`.
        folder: of the files.
        dpi: dots per inch.
        marks: what each file says of what it was drawn from, see `marks_of`.
        have: figures that are there already, and are not drawn again.
        precision: the context that scores are computed in.
        show: is handed each picture too, with its width and height.
    """
    done = Drawn()
    if not only:
        return done
    try:
        # here, since it takes a second and a run without figures needs none of it
        from straylight.callbacks.drawings import DRAWINGS
        from straylight.report.figures import save
    except Exception as error:  # such as a matplotlib that cannot be imported
        log.warning(f"No figure was drawn: {said(error)}")
        return done

    def draws(name: str) -> bool:
        applies = True
        if name in have:
            return applies
        try:
            with precision():
                figure = DRAWINGS[name](material)
            if applies := figure is not None:
                picture = io.BytesIO()
                save(figure, picture, format="png", dpi=dpi, metadata=marks)
                with replacing(folder / f"{name}.png", durable=False) as aside:
                    aside.write_bytes(picture.getvalue())
                show(name, picture.getvalue(), *(round(inches * dpi) for inches in figure.get_size_inches()))
            (done.names if applies else done.none).append(name)
        except Exception as error:  # a picture never fails a run
            done.failed[name] = said(error)
            log.warning(f"The figure {name} was not drawn: {said(error)}")
        STOP.look()
        return applies

    each(only, draws)
    return done


def marks_of(folder: RunFolder | None) -> dict[str, str]:
    """What a picture says of what it was drawn from: the run, and the digest of its scores."""
    if folder is None or folder.run is None:
        return {}
    return {"Run": folder.run, **({"Scores": folder.digest_of_scores} if folder.scores.is_file() else {})}


def current(folder: Path, marks: Mapping[str, str]) -> list[str]:
    """Names of the pictures in a folder that bear these marks; none where there are no marks to go by."""
    from PIL import Image

    found = []
    for name in NAMES if "Scores" in marks else ():
        try:
            with Image.open(folder / f"{name}.png") as picture:
                if marks.items() <= picture.info.items():
                    found.append(name)
        except (OSError, ValueError):  # it is not there, or no picture
            continue
    return found
