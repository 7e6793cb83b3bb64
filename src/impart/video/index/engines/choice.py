"""Choice of the engine of a run: this process, or workers on Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, TypeAlias

from impart.blending.encoder import AugmentedEncoder
from impart.cluster.connection import RayEngine, import_ray
from impart.encoders.base import Encoder
from impart.errors import ConfigError
from impart.video.index.indexer import Indexer
from impart.video.index.writer import Writer

__all__ = ["EngineInput", "check_engine", "open_indexer"]

EngineInput: TypeAlias = "Literal['local', 'ray'] | RayEngine"


def check_engine(engine: EngineInput) -> RayEngine | None:
    """Convert the argument `engine`: None for this process.

    Raises:
        ConfigError: there is no such engine.
        MissingExtraError: it is Ray, which is not installed.

    >>> check_engine("local")
    """
    if engine == "local":
        return None
    if engine != "ray" and not isinstance(engine, RayEngine):
        raise ConfigError(f"engine is {engine!r}: use 'local', 'ray' or a RayEngine")
    import_ray()
    return engine if isinstance(engine, RayEngine) else RayEngine()


@contextmanager
def open_indexer(writer: Writer, encoder: Encoder, *, batch: int, ray: RayEngine | None) -> Iterator[Indexer]:
    """Make the indexer of a run.

    Args:
        writer, encoder, batch: see `Indexer`.
        ray: where workers decode and encode; None = in this process.
    """
    if ray is None:
        from impart.video.decode.decoder import Decoder

        with Decoder(writer.manifest.decode, short_side_px=encoder.traits.image_size_px) as decoder:
            yield Indexer(writer, encoder, decoder=decoder, batch=batch)
        return
    from impart.cluster.encoder_source import EncoderSource
    from impart.cluster.pool import Pool
    from impart.video.index.engines.job import IndexJob, make_index_job
    from impart.video.index.engines.sharded import ShardedIndexer

    base = encoder.base if isinstance(encoder, AugmentedEncoder) else encoder
    settings = writer.manifest.decode

    def workers() -> Pool:
        source = EncoderSource.of(base)

        def make(threads: int) -> Callable[[], IndexJob]:
            return partial(make_index_job, source, settings, batch=batch, threads=threads)

        return Pool(ray, make)

    yield ShardedIndexer(writer, encoder, workers=workers, batch=batch)
