"""Tables of an index: which of their files are damaged, and which version can be gone back to."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from impart.video.index.doctor.checksums import Recorded
from impart.video.index.doctor.versions import Fragment, Version, count_rows, read_version
from impart.video.integrity import ends_well, version_number

__all__ = ["Fault", "TableState", "checked_version", "inspect_table", "named_files"]

_HINT = "_versions/latest_version_hint.json"
_Value = TypeVar("_Value")


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


def inspect_table(
    index: Path, name: str, recorded: Mapping[str, Recorded], differences: Mapping[str, str]
) -> TableState:
    """Compare the files of a table with its versions and with the recorded checksums. The database is not needed.

    Args:
        index: folder of the index.
        name: of the table.
        recorded: checksums, by path below the index.
        differences: files that are not as recorded, see `differences_of`.
    """
    table = index / f"{name}.lance"
    known, changed = _below(recorded, table.name), _below(differences, table.name)
    files = _Files(table, known, changed)
    contents: dict[Path, Version] = {}
    read: dict[bytes, Fragment] = {}
    faults = []
    for file in sorted((table / "_versions").glob("*.manifest"), key=version_number, reverse=True):
        wrong = files.wrong(f"_versions/{file.name}")
        try:
            if not wrong:
                contents[file] = checked_version(read_version(file.read_bytes(), read), file)
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
    parts = {id(part): part for version in contents.values() for part in version.fragments}  # most are in all versions
    needed = frozenset[str]().union(*(part.names for part in parts.values()))
    faults += _older(table, files, contents, needed, but={fault.file for fault in faults})
    bad = {fault.file.relative_to(table).as_posix() for fault in faults if fault.file != table}
    hit = {number for number, part in parts.items() if part.names & bad} if bad else set()
    whole = {file: not any(id(part) in hit for part in version.fragments) for file, version in contents.items()}
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
        versions=tuple(version.number for file, version in contents.items() if whole[file]),
        back=back,
        stale=tuple(file for file in contents if file != base and not whole[file]),
    )


class _Files:
    """Finds what is wrong with files of a table.

    Args:
        known: recorded files, by path below the table.
        changed: what is wrong with those that are not as recorded.
    """

    def __init__(self, table: Path, known: Mapping[str, Recorded], changed: Mapping[str, str]) -> None:
        self._table = table
        self.known = known
        self.changed = changed

    def wrong(self, name: str, *, size: int = 0) -> str:
        """Describe what is wrong with a file; "" = nothing.

        Args:
            size: that the version states; 0 = none.
        """
        file = self._table / name
        try:
            actual = file.stat().st_size
            if size and actual != size:
                return f"has {actual} bytes in place of {size}"
        except FileNotFoundError:
            return "is missing"
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
        if name in self.known:
            return self.changed.get(name, "")
        return "" if name.startswith("_deletions") or ends_well(file) else "is cut short or overwritten"


def _below(found: Mapping[str, _Value], folder: str) -> dict[str, _Value]:
    """Select what is below a folder, by path below it."""
    prefix = f"{folder}/"
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


def checked_version(version: Version, file: Path) -> Version:
    """Check that a version has the number of its file."""
    if version.number != version_number(file):
        raise ValueError(f"it states that it is version {version.number}")
    return version


def named_files(version: Version) -> frozenset[str]:
    """List the data files and deletion files that a version names, as paths below the folder of its table."""
    return frozenset[str]().union(*(fragment.names for fragment in version.fragments))


def _older(
    table: Path, files: _Files, contents: Mapping[Path, Version], needed: Collection[str], *, but: set[Path]
) -> list[Fault]:
    """Find the damaged files that the newest version does not need.

    Args:
        needed: paths below the table that its whole versions name.
        but: files that are known to be damaged.
    """
    names = {name for name in files.changed if not name.endswith(".json") and (table / name).is_file()}
    names |= {name for name in needed if name not in files.known or name in files.changed}
    newest = next(iter(contents.values()), None)
    if newest is not None and f"_transactions/{newest.transaction}" in files.known:
        names.add(f"_transactions/{newest.transaction}")
    faults = []
    for name in sorted(names):
        if table / name not in but and not name.startswith("_versions"):
            wrong = files.wrong(name)
            if wrong:
                faults.append(Fault(file=table / name, wrong=wrong, in_force=False))
    wrong = _wrong_hint(table / _HINT, is_known=_HINT in files.known, changed=files.changed.get(_HINT, ""))
    if wrong:
        faults.append(Fault(file=table / _HINT, wrong=wrong, in_force=False))
    return faults


def _wrong_hint(hint: Path, *, is_known: bool, changed: str) -> str:
    """Describe what is wrong with the hint at the newest version, which readers can do without; "" = nothing."""
    try:
        if changed or is_known or hint.exists():
            int(json.loads(hint.read_bytes())["version"])
    except FileNotFoundError:
        return "is missing"
    except (ValueError, TypeError, LookupError, OSError) as error:
        return f"cannot be read: {error}"
    return changed


def _spare(table: Path, *, but: Collection[str]) -> list[tuple[str, int, int]]:
    """List the whole data files that no whole version has."""
    found = []
    for file in sorted((table / "data").glob("*.lance")):
        if f"data/{file.name}" in but or not ends_well(file):
            continue
        try:
            content = file.read_bytes()
            found.append((file.name, len(content), count_rows(content)))
        except (OSError, ValueError):
            continue
    return found
