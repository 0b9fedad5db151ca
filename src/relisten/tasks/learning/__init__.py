"""Learning the speech of a user: what there is of it, and what can be learnt from."""
