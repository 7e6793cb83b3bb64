"""`impart refset`: build, inspect, grow, merge, tune and use reference sets."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from impart.cli.eval.sweep import sweep
from impart.cli.options import ThreadsOption
from impart.cli.output import settings_in_words
from impart.config import IndexKind, Storage

if TYPE_CHECKING:
    from impart.refset.build import BuildProgress, Failure
    from impart.refset.refset import ReferenceSet

__all__ = ["app"]

app = typer.Typer(help="Reference sets: teach a model new names by images, without training.", no_args_is_help=True)

app.command()(sweep)

SetArgument = Annotated[Path, typer.Argument(metavar="SET", help="Folder of the reference set.")]
SourceArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE", help="A csv, tsv, jsonl, parquet or tar file, or a folder of images or of shards."
    ),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write the set to.")]
ModelOption = Annotated[
    str, typer.Option("--encoder", "-e", metavar="ID", help="Model id; the set works with this model only.")
]
ImageColumn = Annotated[str | None, typer.Option(help="Column of the image; default: guessed by its name.")]
TextColumn = Annotated[str | None, typer.Option(help="Column of the text; default: guessed by its name.")]
ClassNamesOption = Annotated[
    Path | None,
    typer.Option(
        "--class-names",
        metavar="FILE",
        help="Names of class numbers or codes: one name per line, a csv (code, name), or json. "
        "Default: classnames.txt or classes.csv beside the source.",
    ),
]
SourceOption = Annotated[str, typer.Option("--source", help="Collection of the pairs that name none.")]
LicenceOption = Annotated[str, typer.Option(help="Licence of pairs that state none.")]
LimitOption = Annotated[int, typer.Option(min=0, help="At most this many pairs; 0 = all.")]
PerClassOption = Annotated[int, typer.Option(min=0, help="At most this many pairs per text; 0 = all.")]
SeedOption = Annotated[int | None, typer.Option(help="Draw at random with this seed instead of taking the first.")]
EnsembleOption = Annotated[
    bool, typer.Option("--class-prompts", help="Texts are class names: average their embeddings over several prompts.")
]


@app.command()
def build(
    source: SourceArgument,
    out: OutOption,
    encoder: ModelOption = "mini",
    fraction: Annotated[
        float, typer.Option(help="Share of the images held out as references; the rest is listed in rest.csv.")
    ] = 1.0,
    limit: LimitOption = 0,
    per_class: PerClassOption = 0,
    seed: SeedOption = None,
    class_prompts: EnsembleOption = False,
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    class_names: ClassNamesOption = None,
    source_name: SourceOption = "",
    licence: LicenceOption = "",
    storage: Annotated[Storage, typer.Option(help="Precision of the stored vectors.")] = "float16",
    index: Annotated[
        IndexKind, typer.Option(help="Index of nearest neighbours; auto is exact up to 100,000 pairs, hnsw above.")
    ] = "auto",
    tune: Annotated[bool, typer.Option("--tune/--no-tune", help="Choose the blending settings afterwards.")] = True,
    threads: ThreadsOption = 0,
) -> None:
    """Encode image-text pairs into a new reference set."""
    from impart.encoders import load_encoder
    from impart.refset.build import Selection
    from impart.refset.pairs import Columns
    from impart.refset.refset import ReferenceSet
    from impart.retrieval.prompts import CLASS_PROMPTS

    # With `--fraction` the seed draws the hold-out; without it, the pairs of `--limit` and `--per-class`.
    selection = Selection(
        fraction=fraction, limit=limit, per_class=per_class, seed=seed or 0, shuffle=seed is not None and fraction == 1
    )
    model = load_encoder(encoder, **({"threads": threads} if threads else {}))
    made = ReferenceSet.build(
        source,
        model,
        path=out,
        columns=Columns(image=image_column, text=text_column),
        class_names=class_names,
        selection=selection,
        prompts=CLASS_PROMPTS if class_prompts else (),
        source=source_name,
        licence=licence,
        storage=storage,
        index=index,
        on_progress=_show_progress,
        on_failure=_show_failure,
    )
    _end_progress()
    if tune and len(made) > 1:
        made = _tune(made)
        made.save(out)
    _print_info(made, out)
    if made.manifest.failed:
        print(f"{made.manifest.failed} pairs could not be used: {out / 'failures.csv'}", file=sys.stderr)
        raise typer.Exit(3)


@app.command()
def info(
    path: SetArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest.")] = False,
) -> None:
    """Print the content of a reference set and how it was made."""
    from impart.refset.refset import ReferenceSet

    references = ReferenceSet.open(path)
    if as_json:
        print(json.dumps(references.manifest.as_dict(), ensure_ascii=False, indent=2))
    else:
        _print_info(references, path)


@app.command()
def add(
    path: SetArgument,
    source: SourceArgument,
    per_class: PerClassOption = 0,
    limit: LimitOption = 0,
    class_prompts: EnsembleOption = False,
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    class_names: ClassNamesOption = None,
    source_name: SourceOption = "",
    licence: LicenceOption = "",
    tune: Annotated[bool, typer.Option("--tune/--no-tune", help="Choose the blending settings again.")] = True,
    threads: ThreadsOption = 0,
) -> None:
    """Encode more pairs into a set; pairs that it already has are left out."""
    from impart.encoders import load_encoder
    from impart.refset.build import Selection
    from impart.refset.pairs import Columns
    from impart.refset.refset import ReferenceSet
    from impart.retrieval.prompts import CLASS_PROMPTS

    references = ReferenceSet.open(path)
    model = load_encoder(references.encoder_id, **({"threads": threads} if threads else {}))
    failures: list[Failure] = []
    grown = references.add(
        source,
        model,
        columns=Columns(image=image_column, text=text_column),
        class_names=class_names,
        selection=Selection(limit=limit, per_class=per_class),
        prompts=CLASS_PROMPTS if class_prompts else (),
        source=source_name,
        licence=licence,
        on_progress=_show_progress,
        on_failure=failures.append,
    )
    _end_progress()
    if tune:
        grown = _tune(grown)
    grown.save(path)
    _print_info(grown, path)
    for failure in failures:
        _show_failure(failure)
    if failures:
        raise typer.Exit(3)


@app.command()
def merge(
    paths: Annotated[list[Path], typer.Argument(metavar="SET...", help="Two or more reference sets of one model.")],
    out: OutOption,
    tune: Annotated[bool, typer.Option("--tune/--no-tune", help="Choose the blending settings.")] = True,
) -> None:
    """Merge reference sets into a new one, without duplicates."""
    from impart.refset.refset import ReferenceSet

    first, *others = [ReferenceSet.open(path) for path in paths]
    merged = first.merge(*others).named(out.resolve().name)
    if tune and len(merged) > 1:
        merged = _tune(merged)
    merged.save(out)
    _print_info(merged, out)


@app.command()
def tune(
    path: SetArgument,
    background: Annotated[
        Path | None,
        typer.Option(help="Reference set of unrelated images, to calibrate similarities; default: the model's own."),
    ] = None,
    closed: Annotated[
        bool,
        typer.Option(
            "--closed",
            help="Tune for images that all show one of the things that the set names: blend more, without a gate. "
            "For classification among these names, not for search: it would harm other images.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the choice without storing it.")] = False,
) -> None:
    """Choose K, weights and tau by leave-one-out on the set itself; augmentation may be switched off."""
    from impart.refset.refset import ReferenceSet

    references = _tune(ReferenceSet.open(path), background, closed=closed)
    if not dry_run:
        references.save(path)


@app.command()
def use(
    path: Annotated[
        Path, typer.Argument(metavar="SET", help="Folder of a reference set, or of a trained RAM with its own set.")
    ],
    index: Annotated[Path, typer.Option("--index", "-i", envvar="IMPART_INDEX", metavar="DIR", help="Video index.")],
    ram: Annotated[
        Path | None,
        typer.Option("--ram", metavar="CHECKPOINT", help="Blend the set by this trained RAM instead of its settings."),
    ] = None,
) -> None:
    """Blend this set into a video index from now on; no video is decoded or encoded again."""
    import time

    from impart.blending.ram_checkpoint import is_checkpoint, open_ram, references_of
    from impart.refset.refset import ReferenceSet
    from impart.video.index.index import VideoIndex

    started = time.monotonic()
    own = is_checkpoint(path)
    references = references_of(path) if own else ReferenceSet.open(path)
    trained = ram or (path if own else None)
    VideoIndex.open(index, create=False).use_references(references, ram=open_ram(trained) if trained else None)
    by = f", blended by the RAM {trained}" if trained else ""
    print(f"{index} now uses {path} ({len(references)} pairs){by}, {time.monotonic() - started:.1f} s")


def _tune(references: ReferenceSet, background: Path | None = None, *, closed: bool = False) -> ReferenceSet:
    from impart.blending.tune import bundled_background
    from impart.blending.tune import tune as tune_set
    from impart.refset.refset import ReferenceSet

    unrelated = (
        ReferenceSet.open(background)
        if background
        else bundled_background(references.encoder_id, fingerprint=references.encoder_fingerprint)
    )
    tuned = tune_set(references, background=unrelated, closed=closed)
    chosen = tuned.settings
    off = not (chosen.w_img or chosen.w_txt)
    print(f"blending: {'off, it would not help' if off else settings_in_words(dataclasses.asdict(chosen))}")
    if tuned.rule == "leave-one-out":
        print(
            f"  chosen by leave-one-out: of {tuned.items} own images, each without its own row, "
            f"{100 * tuned.before:.1f}% -> {100 * tuned.after:.1f}% right among {tuned.texts} texts"
        )
    elif tuned.rule == "known already":
        print("  off: the model classifies most images correctly, and one image per name cannot be checked: add more")
    else:
        print("  usual weights: too few pairs, or one image per name, to choose weights by leave-one-out")
    if tuned.background and not off:
        gate = f"mean gate on {tuned.background} unrelated images: {100 * tuned.background_gate:.1f}% (low is good)"
        print(f"  {'no gate' if closed else gate}")
    return tuned.references


def _print_info(references: ReferenceSet, path: Path) -> None:
    manifest = references.manifest
    print(f"{path}: {manifest.count} pairs, {len(set(references.texts))} texts")
    print(f"  encoder    {manifest.encoder_id} ({manifest.encoder_fingerprint[:12]})")
    print(f"  vectors    width {manifest.dim}, retrieval {manifest.retrieval_dim}, {manifest.storage}")
    index = manifest.index
    print(f"  search     {index['kind']}, recall@8 {index['recall']:g}")
    print(f"  created    {manifest.created}, rows {manifest.fingerprint[:12]}")
    for source in manifest.sources[:20]:
        licence = source["licence"] or "no licence stated"
        print(f"  source     {source['source'] or 'unnamed'}: {source['pairs']} pairs, {licence}")
    if manifest.duplicates:
        print(f"  left out   {manifest.duplicates} duplicates")
    for note in manifest.notes:
        print(f"  note       {note}")
    if manifest.failed:
        print(f"  failed     {manifest.failed} (failures.csv)")
    blending = "not tuned: the paper's settings"
    if manifest.vanilla is not None:
        blending = settings_in_words(manifest.vanilla)
    print(f"  blending   {blending}")


def _show_progress(event: BuildProgress) -> None:
    if sys.stderr.isatty():
        print(f"\r{event.read} read, {event.written} written, {event.failed} failed", end="", file=sys.stderr)


def _end_progress() -> None:
    if sys.stderr.isatty():
        print(file=sys.stderr)


def _show_failure(failure: Failure) -> None:
    print(f"left out: {failure.path}: {failure.reason}", file=sys.stderr)
