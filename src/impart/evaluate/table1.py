"""The papers' first table for any encoder and reference set: CIFAR-10, CIFAR-100 and Caltech-101, zero-shot.

Rows, all of one encoder and named by it: CLIP alone; RA-CLIP, whose trained module (RAM) adds the output of its
branches without normalisation; the normalised RAM, which classifies much better (IMPART, Fig. 1); RA-CLIP Vanilla,
which is training-free (IMPART, eq. 1), with the paper's weights and with those of `impart refset tune`. The row of a
RAM that is not given has no figure, but the command that trains it.

The paper's figures were measured with ViT-B/32 and a reference set of 1,000 pairs of YFCC15M. They compare with ours
only if encoder and set are the same; `settings_table` lists the differences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from impart.blending.encoder import AugmentedEncoder, augment, settings_of
from impart.blending.ram_checkpoint import encoder_id_of, open_ram, references_of
from impart.config import RamSettings, SolvedSettings, VanillaSettings
from impart.encoders.base import Encoder, load_encoder
from impart.encoders.bundled import bundled
from impart.errors import ConfigError, DataError, EncoderMismatchError
from impart.evaluate.datasets import READERS, open_set
from impart.evaluate.datasets.types import ClassSet
from impart.evaluate.models import EvaluatedModel
from impart.evaluate.report.plots import bars
from impart.evaluate.report.tables import Cell, Table
from impart.evaluate.result import Result, shown
from impart.evaluate.run import Run
from impart.refset.refset import ReferenceSet

__all__ = ["PAPER", "SETS", "Table1Row", "add_tables", "figures_table", "open_sets", "plan_rows", "settings_table"]

SETS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "CIFAR-10": ("cifar10", ("cifar10", "cifar-10", "CIFAR-10", "cifar-10-batches-py", "cifar-10-python.tar.gz")),
    "CIFAR-100": ("cifar100", ("cifar100", "cifar-100", "CIFAR-100", "cifar-100-python", "cifar-100-python.tar.gz")),
    "Caltech-101": ("caltech101", ("caltech101", "caltech-101", "Caltech-101", "101_ObjectCategories")),
}
"""Title -> the reader's name, and the possible places of the set in a data folder."""

PAPER: Mapping[str, tuple[float, float, float]] = {
    "CLIP": (0.8878, 0.6168, 0.8539),
    "RA-CLIP": (0.8898, 0.5192, 0.7791),
    "Vanilla": (0.8817, 0.6180, 0.8602),
}
"""Top-1 on the three sets, as printed in the paper."""

CLIP = "CLIP"
UNNORMALISED = "RA-CLIP (RAM, unnormalised)"
NORMALISED = "RA-CLIP (RAM, normalised)"
LEARNED_VANILLA = "RA-CLIP (RAM, form vanilla)"
VANILLA = "Vanilla, the paper's weights"
TUNED = "Vanilla, tuned"

_SOURCES = 3  # sources of a reference set that are listed
_PAPERS = {CLIP: PAPER["CLIP"], UNNORMALISED: PAPER["RA-CLIP"], VANILLA: PAPER["Vanilla"]}


@dataclass(frozen=True, kw_only=True)
class Table1Row:
    """One row of the table.

    Attributes:
        kind: `CLIP`, or what is added to it.
        encoder: id of the encoder.
        whole: what is evaluated; None = see `missing`.
        missing: why there is no figure, and how to get one.
    """

    kind: str
    encoder: str
    whole: Encoder | None = None
    missing: str = ""

    @property
    def name(self) -> str:
        """The encoder, and what is added to it."""
        return self.encoder if self.kind == CLIP else f"{self.encoder} + {self.kind}"

    @property
    def model(self) -> EvaluatedModel | None:
        """The evaluated model, labelled with the name of the row."""
        return None if self.whole is None else EvaluatedModel(label=self.name, encoder=self.whole)

    @property
    def paper(self) -> tuple[float, float, float] | None:
        """The paper's figures, or None."""
        return _PAPERS.get(self.kind)


def open_sets(folder: Path, *, limit: int | None = None) -> tuple[dict[str, ClassSet], list[str]]:
    """Open the test splits of the three sets in a folder.

    Args:
        folder: with `cifar10`, `cifar100` and `caltech101`, each in any format of the readers.
        limit: images per set, drawn at random with a fixed seed; None = all.

    Returns:
        Title -> set, and notes on missing sets.

    Raises:
        DataError: all sets are missing, or one is damaged.
    """
    found: dict[str, ClassSet] = {}
    notes = []
    for title, (name, places) in SETS.items():
        place = next((folder / one for one in places if (folder / one).exists()), None)
        if place is None:
            reader = READERS.get(name)
            wants = f": it wants {', '.join(reader.files)}; published at {reader.home}" if reader is not None else ""
            notes.append(f"{title} is not in {folder} (looked for {', '.join(places)}){wants}")
            continue
        spec = f"{name}:{place}" if name in READERS else str(place)
        split = "test" if name in READERS or (place / "test").is_dir() else None
        opened = open_set(spec, split=split, kind="classes", limit=limit)
        assert isinstance(opened, ClassSet)
        found[title] = opened
    if not found:
        raise DataError("; ".join(notes))
    return found, notes


def plan_rows(
    encoder_id: str,
    *,
    refset: Path | None = None,
    rams: Sequence[Path] = (),
    options: Mapping[str, object] | None = None,
) -> list[Table1Row]:
    """Assign a model to each row of the table.

    Args:
        encoder_id: the encoder in the place of CLIP.
        refset: its reference set; None = the bundled one, if there is one.
        rams: RAMs that were trained with this encoder.
        options: for `load_encoder`.

    Raises:
        ConfigError: two RAMs have one form.
        EncoderMismatchError: the set, or a RAM, was made with another encoder.
    """
    base = load_encoder(encoder_id, **(options or {}))
    place = refset or bundled(encoder_id, "references")
    references = ReferenceSet.open(place) if place is not None else None
    row = partial(Table1Row, encoder=base.traits.id)
    rows = [row(kind=CLIP, whole=base)]
    trained: dict[str, Table1Row] = {}
    for ram in rams:
        kind, whole = _learned(ram, base, references if refset is not None else None)
        if kind in trained:
            raise ConfigError(f"two RAMs have the form of {kind}: give one --ram per form")
        trained[kind] = row(kind=kind, whole=whole)
    for kind, setting in ((UNNORMALISED, "none"), (NORMALISED, "l2")):
        command = (
            f"impart train ram_mini --pairs PAIRS --set data.encoder={encoder_id} --set ram.form=paper "
            f"--set ram.layers=2 --set ram.norm={setting} --out runs/ram-{setting}"
        )
        none = f"no RAM of this form was given; train one ({command}) and give --ram runs/ram-{setting}/model"
        rows.append(trained.pop(kind, row(kind=kind, missing=none)))
    rows += trained.values()
    if references is None:
        how = f"no reference set: impart refset build PAIRS --encoder {encoder_id} --out SET, then --refset SET"
        return [*rows, row(kind=VANILLA, missing=how), row(kind=TUNED, missing=how)]
    rows.append(row(kind=VANILLA, whole=augment(base, references, settings="paper")))
    if settings_of(references) is None:
        return [*rows, row(kind=TUNED, missing=f"the set is not tuned: impart refset tune {place}")]
    return [*rows, row(kind=TUNED, whole=augment(base, references))]


def add_tables(run: Run, rows: Sequence[Table1Row], sets: Mapping[str, ClassSet], *, prompts: str) -> None:
    """Add the table of figures, the table of settings and a bar plot to a run that has measured all models.

    Args:
        run: with the results of the rows' models on the sets.
        rows: in order.
        sets: title -> data set.
        prompts: for the table of settings.
    """
    titles = {dataset.name: title for title, dataset in sets.items()}
    run.tables += [
        figures_table(rows, run.results, titles, run.summary.bounds),
        settings_table(rows, sets, prompts=prompts),
    ]
    top1 = {(result.encoder, titles[result.dataset]): result.figures["top-1"] for result in run.results}
    values = {
        row.name: [top1.get((row.name, title), math.nan) for title in SETS] for row in rows if row.model is not None
    }
    run.plots.append(lambda folder: bars(folder / "table1.png", list(SETS), values, title="Zero-shot top-1"))


def figures_table(
    rows: Sequence[Table1Row],
    results: Sequence[Result],
    titles: Mapping[str, str],
    bounds: Sequence[Mapping[str, tuple[float, float]]],
) -> Table:
    """Make the table of top-1 per row, the paper's beside ours; the best of ours in bold.

    Args:
        rows: in order.
        results: of the models, labelled with the name of the row.
        titles: name of a data set -> its title.
        bounds: the intervals of each result.
    """
    cells: list[tuple[Cell, ...]] = []
    found = {(one.encoder, titles[one.dataset]): (one, bound) for one, bound in zip(results, bounds, strict=True)}
    best = {
        title: max((one.figures["top-1"] for (_, where), (one, _) in found.items() if where == title), default=None)
        for title in SETS
    }
    for row in rows:
        line = [Cell(row.name)]
        for number, title in enumerate(SETS):
            ours = Cell("-")
            if (row.name, title) in found:
                result, bound = found[row.name, title]
                value = result.figures["top-1"]
                text = shown("top-1", value)
                if "top-1" in bound:
                    low, high = bound["top-1"]
                    text += f" ±{shown('top-1', (high - low) / 2)}"
                ours = Cell(text, best=value == best[title])
            line += [ours, Cell(f"{100 * row.paper[number]:.2f}" if row.paper is not None else "")]
        cells.append(tuple(line))
    columns = ("top-1 %", *(name for title in SETS for name in (f"{title}, here", "in the paper")))
    below = tuple(f"{row.name}: {row.missing}" for row in rows if row.missing)
    return Table(title="Table 1: zero-shot classification", columns=columns, rows=tuple(cells), below=below)


def settings_table(rows: Sequence[Table1Row], sets: Mapping[str, ClassSet], *, prompts: str) -> Table:
    """Make the table of settings, the paper's beside ours."""
    base = next(row.whole for row in rows if row.kind == CLIP and row.whole is not None)
    lines = [("encoder", "ViT-B/32", _encoder_words(base))]
    known: dict[str, list[str]] = {}
    for row in rows:
        if isinstance(row.whole, AugmentedEncoder):
            references = row.whole.references
            sources = [str(one["source"]) for one in references.manifest.sources if one["source"]]
            more = f" and {len(sources) - _SOURCES} more sources" if len(sources) > _SOURCES else ""
            words = f"{references.name or 'unnamed'}, {len(references):,} pairs"
            words += f" of {', '.join(sources[:_SOURCES])}{more}" if sources else ""
            known.setdefault(words, []).append(row.name)
    listed = "; ".join(words if len(known) == 1 else f"{words} ({', '.join(names)})" for words, names in known.items())
    lines.append(("reference set", "1,000 pairs of YFCC15M", listed or "none"))
    full = {"CIFAR-10": "10,000 images", "CIFAR-100": "10,000 images"}
    lines += [
        (f"{title}, test", full.get(title, ""), f"{len(sets[title]):,} images" if title in sets else "missing")
        for title in SETS
    ]
    lines.append(("prompts", "", prompts))
    for row in rows:
        if isinstance(row.whole, AugmentedEncoder):
            settings = row.whole.blender.settings
            paper = {VANILLA: "K 8, image 0.5, text 0.05", UNNORMALISED: "K 8, 2 layers, 8 heads"}.get(row.kind, "")
            lines.append((row.name, paper, _words(settings)))
    cells = tuple(tuple(Cell(text) for text in line) for line in lines)
    below = "An empty cell: the paper's choice is not known. References that show a test image are left out for that "
    below += "data set."
    return Table(title="Settings", columns=("", "the paper", "here"), rows=cells, words=3, below=(below,))


def _learned(ram: Path, base: Encoder, references: ReferenceSet | None) -> tuple[str, AugmentedEncoder]:
    """Open a RAM: the kind of its row, and the augmented encoder.

    Raises:
        EncoderMismatchError: it was trained with another encoder.
    """
    learned = open_ram(ram)
    if learned.encoder_fingerprint != base.fingerprint:
        raise EncoderMismatchError(
            f"the RAM {ram} was trained with encoder {learned.encoder_id!r} ({learned.encoder_fingerprint[:12]}), the "
            f"table is of {base.traits.id!r} ({base.fingerprint[:12]}): the rows of a table have one encoder. Make a "
            f"table of its own with --encoder {encoder_id_of(ram)}"
        )
    settings = learned.settings
    assert isinstance(settings, RamSettings)
    kind = LEARNED_VANILLA if settings.form == "vanilla" else NORMALISED if settings.norm == "l2" else UNNORMALISED
    return kind, AugmentedEncoder(base, references if references is not None else references_of(ram), learned)


def _encoder_words(encoder: Encoder) -> str:
    traits = encoder.traits
    return f"{traits.id}: {traits.dim} numbers, {traits.image_size_px} px"


def _words(settings: VanillaSettings | SolvedSettings | RamSettings) -> str:
    if isinstance(settings, VanillaSettings):
        words = f"K {settings.k}, image {settings.w_img:g}, text {settings.w_txt:g}"
        return words + (f", tau {settings.tau:g}, floor {settings.floor:g}" if settings.tau or settings.floor else "")
    if isinstance(settings, SolvedSettings):
        return f"solved, alpha {settings.alpha:g}, beta {settings.beta:g}, lambda {settings.lam:g}"
    size = f"{settings.layers} layer(s), {settings.heads} heads"
    return f"form {settings.form}, K {settings.k}, {size}, norm {settings.norm}"
