"""From a vector field to the steps of a network: one-step methods."""
