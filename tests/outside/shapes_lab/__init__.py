"""A package of somebody else's, which robode knows nothing of: two families, a data set, a corruption, an attack."""
