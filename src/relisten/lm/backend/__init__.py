"""How a causal LM's layers are computed."""
