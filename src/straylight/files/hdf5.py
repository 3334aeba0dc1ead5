"""HDF5 files that hold what is read of them: HDF5 itself would follow a file's word to any other on the machine."""

from typing import Any

from straylight.errors import DataError


def own(file: Any, item: Any) -> Any:
    """An object of a file, if all of its numbers are in that file too.

    Args:
        file: as it was opened.
        item: a data set, or a group.

    Raises:
        DataError: if it lies in another file, by a link, as raw storage or as parts of a virtual data set.
    """
    import h5py

    elsewhere = ""
    if item.file.filename != file.filename:
        elsewhere = item.file.filename
    elif isinstance(item, h5py.Dataset) and item.external:
        elsewhere = str(item.external[0][0])
    elif isinstance(item, h5py.Dataset) and item.is_virtual:
        elsewhere = next((part.file_name for part in item.virtual_sources() if part.file_name != "."), "")
    if elsewhere:
        raise DataError(
            f"{file.filename} does not hold the numbers of {item.name!r} itself but refers to {elsewhere!r}, which is "
            "not read: copy them into one file, as h5repack does."
        )
    return item
