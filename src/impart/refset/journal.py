"""Journal of a build: rows in parts as they are encoded, so that a build that was stopped continues.

Beside the file of rows, which is complete only at its end, a build of a folder keeps its rows in `.pairs-resume`: parts
of 8,192 pairs read, each an Arrow file and a JSON file with what was counted. A part counts once its JSON file is
there; it is written after the rows are synced. The next build with the same settings takes these parts over and
encodes the rest. It checks that the source still lists the same pairs. A finished build removes the journal.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from impart.errors import ReferenceSetError
from impart.files import atomic_path, remove_stale, sha256_hex, write_json_atomic
from impart.refset.pairs import Pair
from impart.refset.storage import META_COLUMNS, VECTOR_COLUMNS, vectors

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["JOURNAL", "Journal", "Part"]

JOURNAL = ".pairs-resume"
PART_READ = 8192
"""Pairs read per part: what a killed build encodes again at most."""
_UNFINISHED = (".pairs-building.*", ".rest.*")  # files of killed builds, of no use
_STRINGS = [column for column in META_COLUMNS if column != "id"]


@dataclass
class Part:
    """Work of a build since its last part.

    Attributes:
        batches: rows, as `RowWriter.write` stored them.
        read: pairs read.
        digest: of these pairs and of all before them.
        failures: (path, reason) of the pairs that could not be used.
        duplicates: pairs that were dropped.
    """

    batches: list[pa.RecordBatch] = field(default_factory=list)
    read: int = 0
    digest: str = ""
    failures: list[tuple[str, str]] = field(default_factory=list)
    duplicates: int = 0

    def rows(self) -> Iterator[tuple[dict[str, list[str]], dict[str, npt.NDArray[Any]]]]:
        """Return the rows as arguments of `RowWriter.write`: texts by column, and vectors by column."""
        import pyarrow as pa

        for batch in self.batches:
            table = pa.Table.from_batches([batch])
            yield table.select(_STRINGS).to_pydict(), {column: vectors(table, column) for column in VECTOR_COLUMNS}


class Journal:
    """Journal in the folder of a set.

    Args:
        folder: of the set.
        key: of the settings: encoder, source, selection, prompts.
        replace: remove the journal of other settings instead of refusing it.

    Raises:
        ReferenceSetError: the folder has the journal of a build with other settings.
    """

    def __init__(self, folder: Path, key: dict[str, Any], *, replace: bool = False) -> None:
        self._folder = folder / JOURNAL
        self._number = 0
        self._part = Part()
        remove_stale(folder, _UNFINISHED, keep=())
        stated = self._folder / "settings.json"
        settings = json.loads(json.dumps(key))
        try:
            there = json.loads(stated.read_text(encoding="utf-8")) if stated.is_file() else None
        except ValueError:
            there = None
        if there is not None and there != settings:
            if not replace:
                changed = ", ".join(sorted(name for name in settings if settings[name] != there.get(name)))
                raise ReferenceSetError(
                    f"{folder} contains an unfinished build with other settings ({changed}). Build with the same "
                    "settings to continue it, or give --overwrite to start anew"
                )
            there = None
        if there is None:
            self.remove()
            self._folder.mkdir()
            write_json_atomic(stated, settings)

    def replay(self, pairs: Iterator[Pair]) -> Iterator[Part]:
        """Yield the parts that are there, and take their pairs off the source.

        Raises:
            ReferenceSetError: the source lists other pairs than before.
        """
        while (part := self._read()) is not None:
            skipped = _digest(self._part.digest, [_key(pair) for pair in islice(pairs, part.read)])
            if skipped != part.digest:
                raise ReferenceSetError(
                    f"the source lists other pairs than when the build in {self._folder.parent} was stopped, so it "
                    f"cannot be continued: delete {self._folder}, and build again from the start"
                )
            yield part
            self._number += 1
            self._part = Part(digest=part.digest)

    def add(
        self, pairs: list[Pair], rows: pa.RecordBatch | None, *, failures: list[tuple[str, str]], dropped: int
    ) -> None:
        """Record a batch; a full part is written.

        Args:
            pairs: that were read.
            rows: that were made of them; None = none.
            failures: (path, reason) of those that could not be used.
            dropped: those that were duplicates.

        Raises:
            OSError: the part cannot be written.
        """
        part = self._part
        part.digest = _digest(part.digest, [_key(pair) for pair in pairs])
        part.read += len(pairs)
        part.failures += failures
        part.duplicates += dropped
        if rows is not None:
            part.batches.append(rows)
        if part.read >= PART_READ:
            self._write()

    def remove(self) -> None:
        """Remove the journal: the set is complete."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def discard_empty(self) -> None:
        """Remove a journal without a part: there is nothing to continue."""
        if not self._file(0, "json").is_file():
            self.remove()

    def _file(self, number: int, kind: str) -> Path:
        return self._folder / f"{number:06d}.{kind}"

    def _read(self) -> Part | None:
        """Read the next part; None where there is none, or a damaged one, which is encoded again."""
        import pyarrow as pa

        try:
            counted = json.loads(self._file(self._number, "json").read_text(encoding="utf-8"))
            with pa.OSFile(str(self._file(self._number, "arrow"))) as file:
                reader = pa.ipc.open_file(file)
                batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
            if sum(batch.num_rows for batch in batches) != counted["rows"]:
                return None
            failures = [(path, reason) for path, reason in counted["failures"]]
            return Part(batches, counted["read"], counted["digest"], failures, counted["duplicates"])
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
            return None

    def _write(self) -> None:
        import pyarrow as pa

        part, rows = self._part, 0
        with atomic_path(self._file(self._number, "arrow")) as path, pa.OSFile(str(path), "wb") as sink:
            schema = part.batches[0].schema if part.batches else pa.schema([])
            with pa.ipc.new_file(sink, schema) as file:
                for batch in part.batches:
                    file.write_batch(batch)
                    rows += batch.num_rows
        counted = {"rows": rows, "read": part.read, "digest": part.digest, "duplicates": part.duplicates}
        write_json_atomic(self._file(self._number, "json"), counted | {"failures": part.failures}, indent=None)
        self._number += 1
        self._part = Part(digest=part.digest)


def _key(pair: Pair) -> str:
    return f"{pair.image_key}\0{pair.text}\0{pair.problem}"


def _digest(before: str, keys: list[str]) -> str:
    """Digest of pairs one after the other: it does not depend on how they were cut into batches."""
    for key in keys:
        before = sha256_hex(before, key)
    return before
