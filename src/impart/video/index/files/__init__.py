"""Files of an index: scan folders, compare with the index, drop what is gone."""
