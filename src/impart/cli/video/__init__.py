"""Commands on videos and photos: index, search, names, scenes, copies, export."""
