"""Measuring networks: suites, the rows that they give, and quantities that are no accuracies."""
