"""."""

INJECTED = "injected"


def is_injected(h):
    return INJECTED in h.extra
