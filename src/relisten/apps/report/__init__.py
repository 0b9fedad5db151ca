"""The page of `evaluate --html`: one file that opens without a network."""
