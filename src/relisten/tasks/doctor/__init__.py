"""`relisten doctor`: its checks, and what they add up to."""
