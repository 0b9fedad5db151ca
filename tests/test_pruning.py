"""Texts that need not be scored to the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relisten.core.combine import Weights, rank_hypotheses
from relisten.core.pruning import prune_by_margin
from relisten.core.types import FormatError, Hypothesis, NBest

WEIGHTS = Weights({"asr": 1.0, "ctc": 0.5, "text": 0.4, "length": 1.0})
LATER = ("text",)
NATS = st.floats(-40, 0)


def test_by_hand():
    """asr + letters / 2 + words: -6, -3, -9 and -8, so the second is the best. Six nats below it is
    still within six; the first stays whatever it costs."""
    hypotheses = (
        Hypothesis("a b", {"asr": -6.0, "ctc": -4.0}),
        Hypothesis("a c", {"asr": -1.0, "ctc": -8.0}),
        Hypothesis("d", {"asr": -8.0, "ctc": -4.0}),
        Hypothesis("e", {"asr": -7.0, "ctc": -4.0}),
    )
    nbest = NBest("u", hypotheses)

    def left(margin: float) -> list[str]:
        return [h.text for h in prune_by_margin(nbest, WEIGHTS, margin, LATER).hypotheses]

    assert left(6.0) == ["a b", "a c", "d", "e"]
    assert left(5.0) == ["a b", "a c", "e"]
    assert left(1.0) == ["a b", "a c"]
    assert prune_by_margin(NBest("u", ()), WEIGHTS, 1.0, LATER).hypotheses == ()
    with pytest.raises(FormatError, match="ctc"):
        prune_by_margin(NBest("u", (Hypothesis("a", {"asr": -1.0}),)), WEIGHTS, 1.0, LATER)


@given(st.lists(st.tuples(NATS, NATS, NATS), min_size=1, max_size=8), st.floats(0, 20))
def test_what_is_lost_is_what_the_model_would_have_lifted_over_the_margin(scores, margin):
    """The winner of the whole list stays, unless the LM's score sets it more than the margin apart
    from every text that is the best without it."""
    hypotheses = tuple(
        Hypothesis(f"w{i}", {"asr": asr, "ctc": letters, "text": text})
        for i, (asr, letters, text) in enumerate(scores)
    )
    nbest = NBest("u", hypotheses)
    left = prune_by_margin(nbest, WEIGHTS, margin, LATER).hypotheses
    assert left[0] == hypotheses[0]
    winner = rank_hypotheses(nbest, WEIGHTS).hypotheses[0]
    if winner.text not in {h.text for h in left}:
        without = {h.text: h.scores["asr"] + 0.5 * h.scores["ctc"] for h in hypotheses}
        best = max(hypotheses, key=lambda h: without[h.text])
        lifted = 0.4 * (winner.scores["text"] - best.scores["text"])
        assert lifted > margin - 1e-9
