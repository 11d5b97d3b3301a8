"""Linear maps with certified norms, and activations with certified slopes."""
