"""Reference sets: image-text pairs with their embeddings, and the search for the nearest of them."""

from impart.refset.refset import ReferenceSet
from impart.retrieval.nearest import Neighbours

__all__ = ["Neighbours", "ReferenceSet"]
