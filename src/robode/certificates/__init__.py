"""Lipschitz bounds of whole networks, and radii within which no attack can succeed."""
