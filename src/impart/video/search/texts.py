"""Text vectors: the embeddings of the texts that were asked last, so that a repeated text is not encoded again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from impart.blending.encoder import AugmentedEncoder
from impart.encoders.base import Encoder, Float32
from impart.retrieval.prompts import query_embeddings

__all__ = ["TextVectors"]


class TextVectors:
    """Embeddings of texts by one encoder and its prompts. May be shared by threads.

    Args:
        prompts: of the search.
        most: texts that are kept; those asked last.
    """

    def __init__(self, prompts: Sequence[str], *, most: int = 4096) -> None:
        self._prompts = prompts
        self._most = most
        self._lock = threading.Lock()
        self._owner = ""
        self._known: OrderedDict[str, Float32] = OrderedDict()

    def of(self, texts: Iterable[str], encoder: Encoder) -> dict[str, Float32]:
        """Return the unit vector (D,) of each text; those that are not known are encoded in one batch.

        Args:
            encoder: with or without its reference set, which changes no text.
        """
        if isinstance(encoder, AugmentedEncoder):
            encoder = encoder.base
        wanted = list(dict.fromkeys(texts))
        with self._lock:
            if encoder.fingerprint != self._owner:
                self._owner, self._known = encoder.fingerprint, OrderedDict()
            found = {text: self._known[text] for text in wanted if text in self._known}
            owner = self._owner
        new = [text for text in wanted if text not in found]
        if new:
            vectors = query_embeddings(new, encoder.encode_texts, prompts=self._prompts)
            found.update(zip(new, vectors, strict=True))
        with self._lock:
            if owner == self._owner:
                for text in wanted:
                    self._known[text] = found[text]
                    self._known.move_to_end(text)
                while len(self._known) > self._most:
                    self._known.popitem(last=False)
        return found
