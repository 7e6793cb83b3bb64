"""A reference set with the ten colours of the tiny encoder, each paired with its name."""

from __future__ import annotations

from helpers.clips import solid
from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.refset.refset import ReferenceSet


def colour_set() -> ReferenceSet:
    encoder = TinyEncoder()
    made = encoder.encode_images([solid(name) for name in COLOURS])
    return ReferenceSet.from_arrays(
        list(COLOURS),
        image=made.embeddings,
        text=encoder.encode_texts(list(COLOURS)),
        retrieval=made.retrieval,
        encoder_id=encoder.traits.id,
        encoder_fingerprint=encoder.fingerprint,
        name="colours",
    )
