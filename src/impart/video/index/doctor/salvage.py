"""Make a table of what is whole of a damaged one: links to its whole data files, and a version that names only these.

LanceDB has no such function, and reads no data file without a version. The damaged table is not changed. Where the
newest version is lost, data files that no whole version has are joined: all, where there is no whole version at all.
A row that is then there twice is kept once, in its newest form.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impart.video.index.doctor.tables import TableState
from impart.video.index.doctor.versions import with_files, without
from impart.video.index.store import Store
from impart.video.integrity import KEYS

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["only_fragments", "salvage"]

_DELETE_AT_ONCE = 1000


def salvage(state: TableState, into: Path, schema: pa.Schema, *, link: bool) -> Store:
    """Make the folder of a table with the whole rows of another one.

    Args:
        state: of the damaged table.
        into: folder in which the table's folder is made, anew.
        schema: of the table, for one without any whole version.
        link: whether files are hard links, for a table that is to stay; else symbolic ones.

    Returns:
        A store of `into`.

    Raises:
        OSError: it cannot be written.
        ValueError, RuntimeError: the result cannot be read.
    """
    name = state.folder.stem
    table = into / state.folder.name
    shutil.rmtree(table, ignore_errors=True)
    store = Store(into)
    if state.base is None:
        store.database().create_table(name, schema=schema)
    else:
        _link_parts(state, table, link=link)
        content = without(state.base.read_bytes(), state.lost, state.undeleted)
        (table / "_versions").mkdir()
        (table / "_versions" / state.base.name).write_bytes(content)
    opened = store.table(name)
    twice = bool(state.undeleted)
    for file in state.spare:
        rows = _rows_of_file(state, file, into, schema)
        if rows is not None:
            opened.add(rows.cast(opened.schema) if rows.schema != opened.schema else rows)
            twice = True
    if twice:
        _keep_once(opened, name)
    return store


def only_fragments(state: TableState, ids: Collection[int], into: Path) -> Any:
    """Open some fragments of a table as a table of their own, by symbolic links.

    Raises:
        OSError, ValueError, RuntimeError: it cannot be opened.
    """
    assert state.base is not None
    table = into / state.folder.name
    shutil.rmtree(table, ignore_errors=True)
    _link_parts(state, table, link=False)
    others = {fragment.id for fragment in state.fragments} - set(ids)
    (table / "_versions").mkdir()
    (table / "_versions" / state.base.name).write_bytes(without(state.base.read_bytes(), others, state.undeleted))
    return Store(into).table(state.folder.stem)


def _link_parts(state: TableState, table: Path, *, link: bool) -> None:
    """Link the whole data files and deletion files of the base version."""
    for part in ("data", "_deletions"):
        (table / part).mkdir(parents=True)
    names = [
        f"data/{name}" for fragment in state.fragments if fragment.id not in state.lost for name, _ in fragment.files
    ]
    names += [
        f"_deletions/{one.deletions}" for one in state.fragments if one.deletions and one.id not in state.undeleted
    ]
    for name in names:
        source, target = state.folder / name, table / name
        if link:
            target.hardlink_to(source)
        elif source.is_file():
            target.symlink_to(source.absolute())


def _rows_of_file(state: TableState, file: tuple[str, int, int], into: Path, schema: pa.Schema) -> pa.Table | None:
    """Read the rows of a data file that no version names; None where they cannot be read."""
    import pyarrow as pa

    name, place = state.folder.stem, into / "one-file"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        made = Store(place).database().create_table(name, schema=schema)
        made.add(pa.Table.from_pylist([_blank(schema)], schema=schema))
        version = min((place / state.folder.name / "_versions").glob("*.manifest"))
        version.write_bytes(with_files(version.read_bytes(), [file]))
        (place / state.folder.name / "data" / file[0]).symlink_to((state.folder / "data" / file[0]).absolute())
        rows = Store(place).table(name).search().to_arrow()
        rows.validate(full=True)
    except Exception:  # noqa: BLE001 - a panic of the database has a class of its own; the file counts as lost
        return None
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return rows


def _blank(schema: pa.Schema) -> dict[str, Any]:
    """Make a row of zeros: a table without a row has no data file."""
    import pyarrow as pa

    values: dict[str, Any] = {}
    for field in schema:
        if pa.types.is_fixed_size_list(field.type):
            values[field.name] = [0] * field.type.list_size
        elif pa.types.is_list(field.type):
            values[field.name] = []
        else:
            values[field.name] = b"" if pa.types.is_binary(field.type) else "" if pa.types.is_string(field.type) else 0
    return values


def _keep_once(table: Any, name: str) -> None:
    """Keep one of the rows with the same keys: the newest video or failure, any segment."""
    keys = {"videos": ("video_id",), "failures": ("path_id",)}.get(name, KEYS)
    newest = {"videos": "indexed_at", "failures": "failed_at"}.get(name)
    columns = [*keys, *([newest] if newest else [])]
    rows = table.search().with_row_id(True).select(columns).to_arrow()
    rows = rows.sort_by([(newest, "descending")]) if newest else rows
    known: set[tuple[Any, ...]] = set()
    double = []
    for *key, number in zip(*(rows[column].to_pylist() for column in (*keys, "_rowid")), strict=True):
        if tuple(key) in known:
            double.append(number)
        known.add(tuple(key))
    for first in range(0, len(double), _DELETE_AT_ONCE):
        numbers = ", ".join(map(str, double[first : first + _DELETE_AT_ONCE]))
        table.delete(f"_rowid IN ({numbers})")
