"""Figures of single papers."""
