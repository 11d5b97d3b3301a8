"""Gradient masking: its signs, reference attacks that show them, and a verdict on every robust accuracy."""
