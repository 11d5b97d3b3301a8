"""What a family, a data set, a corruption or an attack promises, as functions that look for what breaks the promise.

A contract takes what is to be checked and returns the violations in words, one line each; none where it holds. The
tests and `robode check` call the same functions.
"""
