"""Contractive Hamiltonian and other neural ODEs as image and point classifiers, with certificates."""

__version__ = "0.1.0"
