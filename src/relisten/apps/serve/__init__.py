"""The HTTP service of `relisten serve`, and its page."""
