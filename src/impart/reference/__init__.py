"""The cheat sheet: image-text pairs with their embeddings, and the search for the nearest of them."""

from impart.reference.index import Neighbours
from impart.reference.refset import ReferenceSet

__all__ = ["Neighbours", "ReferenceSet"]
