"""Published tables and figures: what they need, what is there, and how they are made again."""
