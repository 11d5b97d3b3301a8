"""A run is a folder: its identity, its lock, its results."""
