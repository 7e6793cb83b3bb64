"""Tables of an index: which of their files are damaged, and which version can be gone back to."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from impart.video.index.doctor.checksums import Recorded, differs
from impart.video.index.doctor.versions import Fragment, Version, count_rows, read_version
from impart.video.integrity import ends_well, version_number

__all__ = ["Fault", "TableState", "checked_version", "inspect_table", "named_files"]

_PLAIN = re.compile(r"[0-9A-Za-z_.-]+")
_HINT = "_versions/latest_version_hint.json"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A damaged or missing file of a table.

    Attributes:
        in_force: whether the newest version needs it.
        rows: that are lost with it.
    """

    file: Path
    wrong: str
    in_force: bool
    rows: int = 0


@dataclass(frozen=True, kw_only=True)
class TableState:
    """The files of a table.

    Attributes:
        folder: of the table.
        faults: damaged files.
        base: file of the newest whole version; None = there is none.
        fragments: of the base.
        lost, undeleted: ids of the fragments without a whole data file, and of those without their deletion file.
        spare: whole data files that no whole version has: name, size in bytes, rows. Only where a version is lost.
        unrecorded: ids of the fragments whose data files have no checksum.
        versions: numbers of the whole versions, newest first.
        back: whether the newest version is damaged or missing.
        stale: files of older versions that name a damaged file.
    """

    folder: Path
    faults: tuple[Fault, ...]
    base: Path | None
    fragments: tuple[Fragment, ...]
    lost: frozenset[int]
    undeleted: frozenset[int]
    spare: tuple[tuple[str, int, int], ...]
    unrecorded: frozenset[int]
    versions: tuple[int, ...]
    back: bool
    stale: tuple[Path, ...]

    @property
    def whole(self) -> bool:
        """Whether the newest version has all that it needs."""
        return not any(fault.in_force for fault in self.faults)

    def with_lost(self, faults: tuple[Fault, ...], lost: frozenset[int]) -> TableState:
        """Return the state with further damaged data files."""
        from dataclasses import replace

        return replace(self, faults=self.faults + faults, lost=self.lost | lost, unrecorded=self.unrecorded - lost)


def inspect_table(index: Path, name: str, recorded: Mapping[str, Recorded]) -> TableState:
    """Compare the files of a table with its versions and with the recorded checksums. The database is not needed.

    Args:
        index: folder of the index.
        name: of the table.
        recorded: checksums, by path below the index.
    """
    table = index / f"{name}.lance"
    known = {
        path.removeprefix(f"{table.name}/"): line for path, line in recorded.items() if path.startswith(table.name)
    }
    files = _Files(table, known)
    contents: dict[Path, Version] = {}
    faults = []
    for file in sorted((table / "_versions").glob("*.manifest"), key=version_number, reverse=True):
        wrong = files.wrong(f"_versions/{file.name}")
        try:
            if not wrong:
                contents[file] = checked_version(read_version(file.read_bytes()), file)
        except (ValueError, OSError) as error:
            wrong = f"cannot be read: {error}"
        if wrong:
            faults.append(Fault(file=file, wrong=wrong, in_force=not contents))
    newest = max(
        (Path(path) for path in known if path.startswith("_versions/") and path.endswith(".manifest")),
        key=version_number,
        default=None,
    )
    present = max((version_number(file) for file in (table / "_versions").glob("*.manifest")), default=0)
    if newest is not None and version_number(newest) > present:
        faults.append(Fault(file=table / newest, wrong="is missing", in_force=True))
    elif not present:
        faults.append(Fault(file=table, wrong="has no version" if table.is_dir() else "is missing", in_force=True))
    base = next(iter(contents), None)
    fragments = contents[base].fragments if base is not None else ()
    lost, undeleted, unrecorded = set(), set(), set()
    for fragment in fragments:
        for file_name, size in fragment.files:
            wrong = files.wrong(f"data/{file_name}", size=size)
            if wrong:
                faults.append(Fault(file=table / "data" / file_name, wrong=wrong, in_force=True, rows=fragment.rows))
                lost.add(fragment.id)
            elif f"data/{file_name}" not in known:
                unrecorded.add(fragment.id)
        wrong = files.wrong(f"_deletions/{fragment.deletions}") if fragment.deletions else ""
        if wrong:
            faults.append(Fault(file=table / "_deletions" / fragment.deletions, wrong=wrong, in_force=True))
            undeleted.add(fragment.id)
    damaged_now = {fault.file for fault in faults}
    needed = {table / "data" / name for one in contents.values() for part in one.fragments for name, _ in part.files}
    faults += _older(table, files, known, contents, but=damaged_now)
    bad = {fault.file for fault in faults}
    stale = [file for file, version in list(contents.items())[1:] if named_files(table, version) & bad]
    back = any(fault.in_force and fault.file.parent.name == "_versions" for fault in faults) or base is None
    return TableState(
        folder=table,
        faults=tuple(faults),
        base=base,
        fragments=fragments,
        lost=frozenset(lost),
        undeleted=frozenset(undeleted),
        spare=tuple(_spare(table, but=needed | bad)) if back else (),
        unrecorded=frozenset(unrecorded - lost),
        versions=tuple(version.number for version in contents.values() if not named_files(table, version) & bad),
        back=back,
        stale=tuple(stale),
    )


class _Files:
    """Finds what is wrong with files of a table."""

    def __init__(self, table: Path, known: Mapping[str, Recorded]) -> None:
        self._table = table
        self._known = known

    def wrong(self, name: str, *, size: int = 0) -> str:
        """Describe what is wrong with a file; "" = nothing.

        Args:
            size: that the version states; 0 = none.
        """
        file, line = self._table / name, self._known.get(name)
        try:
            actual = file.stat().st_size
            if size and actual != size:
                return f"has {actual} bytes in place of {size}"
            if line is not None:
                return "has other content than its checksum" if differs(file, line, fixed=True) else ""
        except FileNotFoundError:
            return "is missing"
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
        return "" if name.startswith("_deletions") or ends_well(file) else "is cut short or overwritten"


def checked_version(version: Version, file: Path) -> Version:
    """Check that a version has the number of its file, and names no file elsewhere."""
    if version.number != version_number(file):
        raise ValueError(f"it states that it is version {version.number}")
    names = [name for fragment in version.fragments for name, _ in fragment.files]
    if not all(_PLAIN.fullmatch(name) for name in names):
        raise ValueError("it has a name that no file of a table has")
    return version


def named_files(table: Path, version: Version) -> set[Path]:
    """List the data files and deletion files that a version of a table names."""
    data = {table / "data" / name for fragment in version.fragments for name, _ in fragment.files}
    return data | {table / "_deletions" / fragment.deletions for fragment in version.fragments if fragment.deletions}


def _older(
    table: Path, files: _Files, known: Mapping[str, Recorded], contents: Mapping[Path, Version], *, but: set[Path]
) -> list[Fault]:
    """Find the damaged files that the newest version does not need."""
    names = {name for name in known if not name.endswith(".json") and (table / name).is_file()}
    for version in contents.values():
        names |= {file.relative_to(table).as_posix() for file in named_files(table, version)}
    newest = next(iter(contents.values()), None)
    if newest is not None and f"_transactions/{newest.transaction}" in known:
        names.add(f"_transactions/{newest.transaction}")
    faults = []
    for name in sorted(names):
        if table / name not in but and not name.startswith("_versions"):
            wrong = files.wrong(name)
            if wrong:
                faults.append(Fault(file=table / name, wrong=wrong, in_force=False))
    wrong = _wrong_hint(table / _HINT, known.get(_HINT))
    if wrong:
        faults.append(Fault(file=table / _HINT, wrong=wrong, in_force=False))
    return faults


def _wrong_hint(hint: Path, line: Recorded | None) -> str:
    """Describe what is wrong with the hint at the newest version, which readers can do without; "" = nothing."""
    try:
        if line is not None and differs(hint, line, fixed=False):
            return "has other content than its checksum"
        if line is not None or hint.exists():
            int(json.loads(hint.read_bytes())["version"])
    except FileNotFoundError:
        return "is missing"
    except (ValueError, TypeError, LookupError, OSError) as error:
        return f"cannot be read: {error}"
    return ""


def _spare(table: Path, *, but: set[Path]) -> list[tuple[str, int, int]]:
    """List the whole data files that no whole version has."""
    found = []
    for file in sorted((table / "data").glob("*.lance")):
        if file in but or not ends_well(file):
            continue
        try:
            content = file.read_bytes()
            found.append((file.name, len(content), count_rows(content)))
        except (OSError, ValueError):
            continue
    return found
