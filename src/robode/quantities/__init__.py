"""What is measured of a trained network besides scores of samples: entries of a suite, one quantity a file."""
