"""Families and data sets for robode."""
