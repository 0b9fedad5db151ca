"""Hypotheses that join a list: proposals, other recognisers'."""
