"""Can an attacked accuracy be believed? Signs of hidden gradients, reference attacks, verdicts."""
