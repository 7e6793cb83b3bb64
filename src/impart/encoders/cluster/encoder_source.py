"""Way of an encoder to workers: by id where this package can load it there, else by value."""

from __future__ import annotations

import dataclasses
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from impart.encoders.base import Encoder, load_encoder
from impart.encoders.cluster.connection import import_ray
from impart.encoders.onnx.session import RuntimeOptions
from impart.errors import EncoderError, EncoderMismatchError

__all__ = ["EncoderSource"]


@dataclass(frozen=True, kw_only=True)
class EncoderSource:
    """An encoder as a worker loads it; it is small unless the encoder travels by value.

    Attributes:
        id: of the base encoder.
        fingerprint: that the loaded encoder must have.
        options: of `load_encoder`, but for the threads, which each worker has.
        value: the pickled encoder, or None where the id is enough.

    Example:
        >>> import impart
        >>> source = EncoderSource.of(impart.load_encoder("mini", threads=2))
        >>> source.id, source.load(threads=1).traits.dim
        ('mini', 384)
    """

    id: str
    fingerprint: str
    options: Mapping[str, Any]
    value: bytes | None = None

    @classmethod
    def of(cls, encoder: Encoder) -> EncoderSource:
        """Describe an encoder.

        Args:
            encoder: base encoder. One of the caller's own class must be picklable.

        Raises:
            EncoderError: it is of the caller's own class, and cannot be pickled.
        """
        by_id = cls(id=encoder.traits.id, fingerprint=encoder.fingerprint, options={})
        if type(encoder).__module__.startswith("impart."):
            given = getattr(encoder, "options", {})
            return dataclasses.replace(
                by_id, options=_of_runtime(given) if isinstance(given, RuntimeOptions) else given
            )
        try:
            value: bytes = import_ray().cloudpickle.dumps(encoder)
        except Exception as error:  # whatever an object of the caller raises
            raise EncoderError(
                f"encoder {encoder.traits.id!r} cannot be sent to workers ({type(error).__name__}: {error}): make its "
                "class picklable, or index without --engine ray"
            ) from error
        return dataclasses.replace(by_id, value=value)

    def load(self, *, threads: int) -> Encoder:
        """Load the encoder.

        Args:
            threads: CPU threads of an encoder that is loaded by its id.

        Raises:
            EncoderError: it cannot be loaded here.
            EncoderMismatchError: the model of this id is another one here.
        """
        if self.value is not None:
            encoder: Encoder = pickle.loads(self.value)
        else:
            encoder = load_encoder(self.id, threads=threads, **self.options)
        if encoder.fingerprint != self.fingerprint:
            raise EncoderMismatchError(
                f"encoder {self.id!r} has fingerprint {encoder.fingerprint[:12]} here and {self.fingerprint[:12]} "
                "where the command was started: copy the same model files to every machine"
            )
        return encoder


def _of_runtime(given: RuntimeOptions) -> dict[str, Any]:
    """Options of a model on ONNX Runtime, which cuts batches as here: other pieces change the last bits of a vector."""
    options = dataclasses.asdict(given) | {"split": given.split or given.threads or os.cpu_count() or 1}
    del options["threads"]
    return options
