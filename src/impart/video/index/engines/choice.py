"""Choice of the engine of a run: this process, or workers on Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from impart.blending.encoder import AugmentedEncoder
from impart.encoders.base import Encoder
from impart.encoders.cluster.connection import RayEngine
from impart.video.index.indexer import Indexer
from impart.video.index.writer import Writer

__all__ = ["open_indexer"]


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
    from impart.encoders.cluster.encoder_source import EncoderSource
    from impart.encoders.cluster.pool import Pool
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
