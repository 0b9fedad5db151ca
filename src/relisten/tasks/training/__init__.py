"""Training: stages, the loop, and what they read."""
