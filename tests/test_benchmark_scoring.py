"""All ways that the benchmarks compare compute the same, on hypotheses like real ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from relisten.lm.model import SpeechTextLM
from relisten.lm.vocabulary import Vocabulary
from tiny_models import tiny_causal_lm


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))


def words(*texts: str) -> list[tuple[str, ...]]:
    return [tuple(text.split()) for text in texts]


@pytest.mark.parametrize("n_given", [1, 9])
def test_all_ways_agree(n_given):
    """Also where a batch is padded and where a list takes several batches of 1,024 tokens."""
    import peers

    rng = np.random.default_rng(0)
    given = rng.integers(2, 60, n_given).tolist()
    utterance = [[*given, *rng.integers(2, 60, k % 7 + 1).tolist(), 1] for k in range(90)]
    problem = peers.Problem([utterance, utterance[:3]], n_given)
    causal = tiny_causal_lm("llama")
    wanted = peers.tree(SpeechTextLM(causal, Vocabulary(60 + 4, 0, 1)))(problem)
    for make in (peers.hf_batch, peers.hf_cached_prefix):
        for a, b in zip(make(causal)(problem), wanted, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3)
    assert problem.n_scored == sum(len(s) - n_given for u in problem.sequences for s in u)


def test_confusions_go_both_ways_and_keep_a_word_beside_them():
    from widen import confusions

    known = confusions([words("a red hat", "a read hat", "a hat", "big a red hat")])
    assert known[("red",)] == [("read",)]
    assert known[("read",)] == [("red",)]
    assert known[("a", "red")] == [("a",)]  # deleted after "a"
    assert known[("a",)] == [("a", "red"), ("big", "a")]  # inserted before it, at the start


def test_wider_lists_keep_their_hypotheses_and_repeat_none():
    from widen import confusions, widened

    lists = [words("a red hat", "a read hat", "the red hat"), words("a hat", "the hat")]
    known = confusions(lists)
    (wide,) = widened(lists, known, 4)  # the words of the second list allow no four
    assert wide[:3] == lists[0]
    assert wide[3] == ("the", "read", "hat")
    assert widened(lists, known, 2) == [lists[0][:2], lists[1]]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Characters and the end of a text."""
    vocabulary = {c: i for i, c in enumerate(["<eos>", "<unk>", *"abcdefghijklmnopqrstuvwxyz' "])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")


def test_quick_run_ends_with_one_json_line(monkeypatch, tmp_path):
    import peers
    import scoring

    monkeypatch.setattr(scoring, "resolve_model", lambda reference: reference)
    for name in ("load_causal_lm", "load_for_scoring"):
        monkeypatch.setattr(scoring, name, lambda _: (tiny_causal_lm("llama"), tiny_tokenizer()))
    monkeypatch.setattr(peers, "minicons", lambda causal, _: peers.hf_batch(causal))
    monkeypatch.setattr(scoring, "version", lambda package: "any")
    monkeypatch.setattr(scoring, "QUICK_LISTS", {10: 1, 50: 1})
    saved = tmp_path / "results.json"
    run = CliRunner().invoke(
        scoring.main, ["--quick", "--threads", "1", "--save", str(saved)], catch_exceptions=False
    )
    summary = json.loads(run.output.splitlines()[-1])
    assert summary["largest_difference"] < scoring.TOLERANCE
    everything = json.loads(saved.read_text())
    assert everything["summary"] == summary
    (row,) = (r for r in everything["rows"] if r["n"] == 10)
    peer = min(row["seconds"][name] for name in scoring.PEERS)
    assert summary["speedup_n10"] == pytest.approx(peer / row["seconds"]["tree"], rel=1e-3)
    assert {"speedup_n50", "dense_fraction"} <= summary.keys()
    assert row["tree_tokens"] < row["batch_tokens"] / 3


def test_scores_that_differ_are_not_timed():
    import scoring

    with pytest.raises(SystemExit, match=r"b differs from a by 0\.5 nats"):
        scoring.check_agreement({"a": [[-1.0], [-2.0, -3.0]], "b": [[-1.0], [-2.0, -3.5]]})
    with pytest.raises(SystemExit, match="b differs"):
        scoring.check_agreement({"a": [[-1.0]], "b": [[float("nan")]]})


def test_quick_run_of_a_training_step(monkeypatch, tmp_path):
    """All ways agree on the gradients, or they would not be timed."""
    import mwer
    import scoring

    monkeypatch.setattr(mwer, "resolve_model", lambda reference: reference)
    tiny = (tiny_causal_lm("llama"), tiny_tokenizer())
    monkeypatch.setattr(mwer, "load_causal_lm", lambda _: tiny)
    monkeypatch.setattr(mwer, "QUICK_LISTS", 1)
    monkeypatch.setattr(scoring, "version", lambda package: "any")
    saved = tmp_path / "results.json"
    run = CliRunner().invoke(
        mwer.main, ["--quick", "--threads", "1", "--save", str(saved)], catch_exceptions=False
    )
    summary = json.loads(run.output.splitlines()[-1])
    everything = json.loads(saved.read_text())
    assert everything["summary"] == summary
    for row in everything["rows"]:
        assert row["largest_difference"] < mwer.TOLERANCE
        assert row["tree_tokens"] < row["batch_tokens"] / 2
        ratio = row["seconds"][mwer.ONE_BY_ONE] / row["seconds"][mwer.TREE]
        assert summary[f"speedup_prefix{row['prefix']}"] == pytest.approx(ratio, rel=1e-3)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_quick_run_as_on_a_gpu(monkeypatch, tmp_path):
    """All ways to attend agree, or they would not be timed."""
    import gpu
    import scoring

    monkeypatch.setattr(scoring, "version", lambda package: "any")
    saved = tmp_path / "results.json"
    asked = ["--device", "cpu", "--size", "tiny", "--lists", "2", "--repeats", "1"]
    run = CliRunner().invoke(gpu.main, [*asked, "--save", str(saved)], catch_exceptions=False)
    summary = json.loads(run.output.splitlines()[-1])
    assert summary["largest_difference"] < scoring.TOLERANCE
    rows = json.loads(saved.read_text())["rows"]
    assert {row["way"] for row in rows} == set(gpu.WAYS)
    for row in rows:
        assert row["tflops"] == pytest.approx(
            row["share_of_products"] * summary["products_tflops"], rel=1e-3
        )


def test_needed_flops_by_hand():
    """The tree 0 5 6 7 of "0 5 6 E, 0 5 E, 0 7 E": depths 0 1 2 1, every node predicts.

    Products: 4 nodes, 2 layers of 64 * (2 * 64 + 2 * 32 + 3 * 128) = 36,864 weights; head: 4 rows
    of 64 * 300; attention: 1 + 2 + 3 + 2 = 8 pairs of 64 numbers, twice two FLOPs, in 2 layers.
    """
    import gpu
    import peers

    problem = peers.Problem([[[0, 5, 6, 1], [0, 5, 1], [0, 7, 1]]], 1)
    products, head, attention = 2 * 4 * 2 * 36_864, 2 * 4 * 64 * 300, 4 * 8 * 64 * 2
    assert gpu.needed_flops(gpu.SHAPES["tiny"], problem) == products + head + attention
