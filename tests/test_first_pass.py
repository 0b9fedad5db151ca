"""First passes: summed log-probabilities, word ends, and agreement of the back ends."""

from __future__ import annotations

import functools
import gc
import itertools
import math
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from relisten.core.types import ModelError, UsageError
from relisten.speech.ctc.likelihood import UNSAYABLE, ctc_scores
from relisten.speech.ctc.recogniser import TransformersCTC, ctc_collapse
from relisten.speech.first_pass import DecodingOptions, FirstPass
from relisten.speech.whisper.ctranslate2 import CTranslate2Whisper
from relisten.speech.whisper.suppression import Suppression
from relisten.speech.whisper.transformers import TransformersWhisper
from tiny_speech import SUPPRESSED, noise, tiny_ct2_whisper, tiny_ctc, tiny_whisper

AUDIO = [noise(1.0), noise(0.73, seed=1)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(suppress, back end) → folder of one tiny Whisper, with and without suppression lists."""
    made = {}
    for suppress in (False, True):
        root = tmp_path_factory.mktemp(f"whisper{suppress}")
        made[suppress, "hf"] = tiny_whisper(root / "hf", suppress)
        made[suppress, "ct2"] = tiny_ct2_whisper(root / "hf", root / "ct2")
    return made


@pytest.fixture(scope="module")
def whispers(folders):
    """The same with the first passes loaded in float32."""
    kinds = {"hf": TransformersWhisper, "ct2": CTranslate2Whisper}
    return {key: kinds[key[1]](folder, "cpu", "float32") for key, folder in folders.items()}


load_reference = functools.cache(WhisperForConditionalGeneration.from_pretrained)


def step_logprob(folder, frames, before, target, banned):
    """log P(target | tokens before) by a forward pass of its own; banned tokens are taken out."""
    model = load_reference(folder).eval()
    start = model.config.decoder_start_token_id
    prompt = [start, start + 8]  # <|startoftranscript|><|notimestamps|>
    with torch.no_grad():
        logits = model(
            encoder_outputs=BaseModelOutput(frames),
            decoder_input_ids=torch.tensor([[*prompt, *before]]),
        ).logits[0, -1]
    allowed = [v for v in range(len(logits)) if v not in banned or v == target]
    return float(logits[target] - torch.logsumexp(logits[allowed], 0))


def teacher_forced(folder, frames, tokens, suppressed, suppressed_first):
    """log P(tokens, EOS), step by step."""
    end = load_reference(folder).config.eos_token_id
    return sum(
        step_logprob(
            folder,
            frames,
            tokens[:i],
            target,
            [*suppressed, *(suppressed_first if i == 0 else [])],
        )
        for i, target in enumerate([*tokens, end])
    )


@pytest.mark.parametrize("suppress", [False, True])
@pytest.mark.parametrize("backend", ["ct2", "hf"])
def test_asr_is_the_summed_logprob_with_eos_for_beam_and_samples(
    whispers, folders, monkeypatch, backend, suppress
):
    """Checked against a step-by-step pass of transformers: the beam and samples at T = 2.

    Whisper's suppression lists renormalise what is left; that is part of the score's meaning.
    """
    whisper, folder = whispers[suppress, backend], folders[suppress, "hf"]
    frames = whispers[suppress, "hf"].encoder.encode_window(AUDIO[:1])
    tokenizer = whispers[suppress, "ct2"].tokenizer
    banned = (SUPPRESSED, [tokenizer.token_to_id(t) for t in ("Ġ", "<|endoftext|>")])
    monkeypatch.setattr(whisper, "_decode", lambda ids: " ".join(map(str, ids)))  # ids as text
    result = whisper.decode(AUDIO[:1], DecodingOptions(3, 3, samples=3, temperature=2.0))[0]
    assert len(result.hypotheses) >= 4
    for hypothesis in result.hypotheses:
        ids = [int(word) for word in hypothesis.text.split()]
        expected = teacher_forced(folder, frames, ids, *(banned if suppress else ([], [])))
        assert hypothesis.scores["asr"] == pytest.approx(expected, abs=1e-3)


def test_suppression_renormalises(whispers, folders):
    """The same text is more probable under suppression, by the probability that was taken out."""
    free = whispers[False, "ct2"].decode(AUDIO[:1], DecodingOptions(1, 1))[0].hypotheses[0]
    frames = whispers[False, "hf"].encoder.encode_window(AUDIO[:1])
    tokens = whispers[False, "ct2"].tokenizer.encode(free.text).ids
    whole = teacher_forced(folders[False, "hf"], frames, tokens, [], [])
    other = [t for t in SUPPRESSED if t not in tokens]
    assert teacher_forced(folders[False, "hf"], frames, tokens, other, []) > whole
    assert whole == pytest.approx(free.scores["asr"], abs=1e-3)


@pytest.mark.parametrize("suppress", [False, True])
def test_the_back_ends_agree(whispers, suppress):
    """Same weights, same beam: same texts and scores, whichever library runs them."""
    ct2 = whispers[suppress, "ct2"].decode(AUDIO, DecodingOptions(4, 4))
    hf = whispers[suppress, "hf"].decode(AUDIO, DecodingOptions(4, 4))
    for ours, theirs in zip(ct2, hf, strict=True):
        np.testing.assert_allclose(ours.frames, theirs.frames, atol=1e-4)
        found = {h.text: h.scores["asr"] for h in theirs.hypotheses}
        both = [h for h in ours.hypotheses if h.text in found]
        assert len(both) >= 2
        for hypothesis in both:
            assert hypothesis.scores["asr"] == pytest.approx(found[hypothesis.text], abs=2e-3)


def test_the_back_ends_align_alike(whispers):
    """Our warping over transformers' attention cuts where CTranslate2 does (20 ms frames)."""
    texts = [["a bc d", "xyz", ""], ["ab cd ef gh"]]
    ct2, hf = whispers[False, "ct2"], whispers[False, "hf"]
    frames = hf.encoder.encode(AUDIO)
    theirs, ours = ct2.align(AUDIO, texts, frames), hf.align(AUDIO, texts, frames)
    assert [[len(ends) for ends in row] for row in ours] == [[3, 1, 0], [4]]
    for a, b in zip(itertools.chain(*theirs), itertools.chain(*ours), strict=True):
        np.testing.assert_allclose(a, b, atol=0.021)


@pytest.fixture(scope="module")
def ctc(tmp_path_factory):
    return TransformersCTC(tiny_ctc(tmp_path_factory.mktemp("ctc")), "cpu", "float32")


@pytest.mark.parametrize("kind", ["ct2", "hf", "ctc"])
def test_the_contract_of_every_first_pass(whispers, folders, ctc, kind):
    def decode(seed):
        first_pass: FirstPass = ctc if kind == "ctc" else whispers[True, kind]
        if kind == "ct2":  # seeded when the loaded model first draws
            first_pass = CTranslate2Whisper(folders[True, kind], "cpu", "float32")
        options = DecodingOptions(4, 3, samples=4, temperature=1.5, seed=seed)
        return first_pass, first_pass.decode(AUDIO, options)

    first_pass, decoded = decode(seed=7)
    (_, again), (_, other) = decode(seed=7), decode(seed=8)
    assert [x.hypotheses for x in decoded] == [x.hypotheses for x in again]
    assert [x.hypotheses for x in decoded] != [x.hypotheses for x in other]
    for result, samples in zip(decoded, AUDIO, strict=True):
        duration_s = len(samples) / 16_000
        assert result.frames.dtype == np.float32
        assert result.frames.shape == (math.ceil(duration_s * 50), first_pass.encoder.dim)
        assert 3 < len(result.hypotheses) <= 7
        for hypothesis in result.hypotheses:
            assert hypothesis.text == hypothesis.text.strip()
            assert hypothesis.scores["asr"] < 0.0
            ends = hypothesis.word_ends_s
            assert len(ends) == len(hypothesis.text.split())
            assert list(ends) == sorted(ends)
            assert all(0.0 <= end <= duration_s for end in ends)


@pytest.mark.parametrize("kind", ["ct2", "hf", "ctc"])
def test_align_covers_unknown_characters_and_empty_recordings(whispers, ctc, kind):
    first_pass: FirstPass = ctc if kind == "ctc" else whispers[True, kind]
    texts = [["AB .. BA", "  ", "A"], ["AB A"]]
    ends = first_pass.align([AUDIO[0], np.zeros(0, np.float32)], texts)
    assert [len(e) for e in ends[0]] == [3, 0, 1]
    assert list(ends[0][0]) == sorted(ends[0][0])
    assert ends[1] == [(0.0, 0.0)]


def test_an_empty_hypothesis_has_its_probability(whispers, folders):
    """The mean over no tokens is undefined, so its score is computed separately."""
    whisper = whispers[False, "ct2"]
    hypotheses = whisper.decode(AUDIO[:1], DecodingOptions(1, 1))[0].hypotheses
    scores = {h.text: h.scores["asr"] for h in hypotheses}
    frames = whispers[False, "hf"].encoder.encode_window(AUDIO[:1])
    expected = teacher_forced(folders[False, "hf"], frames, [], [], [])
    assert scores[""] == pytest.approx(expected, abs=1e-3)


def test_refusals(whispers, tmp_path):
    whisper = whispers[True, "ct2"]
    with pytest.raises(UsageError, match=r"recording 1 lasts 31\.0 s.*speech_segments"):
        whisper.decode([AUDIO[0], noise(31)])
    with pytest.raises(ModelError, match=r"model\.bin"):
        CTranslate2Whisper(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": 4, "n_best": 5}, "n_best 5: .* 1 to 4 .*; ask for fewer, or widen the beam"),
        ({"n_best": 0}, "n_best 0"),
        ({"samples": -1}, "samples -1: give 0 or more"),
        ({"temperature": 0.0}, "temperature 0.0: give a number above 0"),
        ({"temperature": float("nan")}, "temperature nan"),
    ],
)
def test_options_that_contradict_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        DecodingOptions(**options)


def test_a_short_text_of_a_long_recording_has_its_own_probability(ctc):
    """CTC scores of given texts were once at least -20 nats per letter, which made "A" more
    probable than the right text; only a text that the frames cannot hold is scored so."""
    log_probs = ctc._log_probs(ctc.encoder.encode([noise(4.0)])[0])
    rows, wrong = np.arange(len(log_probs)), ctc.tokenizer.get_vocab()["A"]
    log_probs[rows, wrong] = -30.0  # no frame is like A, nor like silence
    log_probs[rows, ctc.blank] = -30.0
    [found] = ctc._scores(log_probs, [(wrong,)])
    assert found == pytest.approx(-30.0 * len(rows) + math.log(n_paths(len(rows))), rel=1e-6)
    assert found < UNSAYABLE * 2


def n_paths(n_frames):
    """CTC paths of a single label: blanks, the label for one run of frames, blanks."""
    return n_frames * (n_frames + 1) // 2


def every_path(log_probs, blank):
    """Label sequence → log of the summed probability of its paths, by listing all V^T paths."""
    totals: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        score = float(log_probs[range(len(path)), path].sum())
        labels = ctc_collapse(path, blank)
        totals[labels] = np.logaddexp(totals.get(labels, -math.inf), score)
    return totals


def test_ctc_score_against_all_paths():
    logits = np.random.default_rng(3).standard_normal((5, 3))
    log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    totals = every_path(log_probs, blank=0)
    assert np.logaddexp.reduce(list(totals.values())) == pytest.approx(0.0)
    for labels, total in totals.items():
        found = ctc_scores(torch.from_numpy(log_probs)[None], [5], [labels], blank=0)
        assert found == pytest.approx(total)


@pytest.mark.parametrize("kind", ["ct2", "hf", "ctc"])
@pytest.mark.parametrize("reuse", [False, True])
def test_its_own_hypotheses_get_the_same_score_back(whispers, ctc, monkeypatch, kind, reuse):
    """Beam and samples, except those changed by stripping white space: to 1e-3.

    The tiny Whisper has no word that begins with a space, so its texts are spelled without.
    """
    first_pass: FirstPass = ctc if kind == "ctc" else whispers[True, kind]
    if kind != "ctc":
        spell = whispers[True, "ct2"].tokenizer.encode
        monkeypatch.setattr(first_pass, "tokens", lambda text: tuple(spell(text).ids))
    decoded = first_pass.decode(AUDIO, DecodingOptions(4, 4, samples=4, temperature=1.5))
    n_same = 0
    for recording, result in zip(AUDIO, decoded, strict=True):
        scorer = first_pass.scorer(recording, result.window if reuse else None)
        hypotheses = scorer.score([h.text for h in result.hypotheses])
        for own, given in zip(result.hypotheses, hypotheses, strict=True):
            assert given.text == own.text
            if given.scores["asr"] == pytest.approx(own.scores["asr"], abs=1e-3):
                n_same += 1
                assert len(given.word_ends_s) == len(own.text.split())
                np.testing.assert_allclose(given.word_ends_s, own.word_ends_s, atol=1e-3)
    assert n_same >= 8


def test_scorers_do_not_disturb_each_other(whispers):
    """Windows were once kept in the recogniser, by identity: two threads would have mixed them up.
    Now each caller holds its scorer, and nothing of it stays when the caller lets go of it."""
    whisper = whispers[True, "ct2"]
    recordings = [noise(0.2 + 0.1 * i, seed=i) for i in range(8)]
    batches = [["ab", "abc", ""], ["abd", "b a"], ["ab"]]

    def scores(recording):
        scorer = whisper.scorer(recording)
        return [h.scores["asr"] for texts in batches for h in scorer.score(texts, timed=False)]

    alone = [scores(recording) for recording in recordings]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(scores, recordings))
    np.testing.assert_allclose(together, alone, atol=1e-4)
    window = whisper.decode([recordings[0]])[0].window
    scorer, kept = whisper.scorer(recordings[0], window), weakref.ref(window)
    scorer.score(["ab"])
    del scorer, window
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("suppress", [False, True])
@pytest.mark.parametrize("backend", ["ct2", "hf"])
def test_a_given_text_has_its_summed_logprob(whispers, folders, backend, suppress):
    """Texts that no search proposed, of all lengths, against the step-by-step pass."""
    whisper, folder = whispers[suppress, backend], folders[suppress, "hf"]
    frames = whispers[suppress, "hf"].encoder.encode_window(AUDIO[:1])
    tokenizer = whispers[suppress, "ct2"].tokenizer
    banned = (SUPPRESSED, [tokenizer.token_to_id(t) for t in ("Ġ", "<|endoftext|>")])
    texts = ["dog", "a cat's name", "x", "Bad Fed", "zz" * 6]
    for text, hypothesis in zip(texts, whisper.scorer(AUDIO[0]).score(texts), strict=True):
        ids = list(whisper.tokens(text))
        expected = teacher_forced(folder, frames, ids, *(banned if suppress else ([], [])))
        assert hypothesis.scores["asr"] == pytest.approx(expected, abs=2e-3), text


def test_every_text_has_a_finite_score(whispers, ctc):
    """No words, which Whisper never proposes first; a suppressed letter; more letters than CTC has
    frames for; an empty recording."""
    for first_pass in (whispers[True, "ct2"], whispers[True, "hf"], ctc):
        texts = ["", "b", "a " * 150]
        for recording in (AUDIO[0], np.zeros(0, np.float32)):
            scored = first_pass.scorer(recording).score(texts)
            assert [h.text for h in scored] == texts
            assert all(-1e5 < h.scores["asr"] <= 0 for h in scored)
    n_labels = len(ctc.tokens("a " * 150))
    assert ctc.scorer(AUDIO[0]).score(["a " * 150])[0].scores["asr"] == UNSAYABLE * (1 + n_labels)


def test_texts_with_the_same_tokens(whispers, ctc):
    assert ctc.tokens("Hello, world!") == ctc.tokens("HELLO WORLD") != ctc.tokens("HELLOWORLD")
    for kind in ("ct2", "hf"):
        whisper = whispers[False, kind]
        assert whisper.tokens("ab") == whisper.tokens(" ab ") != whisper.tokens("Ab")
        assert whisper.tokens("") == ()


def test_suppression_by_hand():
    """Odds 1 : 2 : 5 : 8. Row 0 without token 3: 2 / (1 + 2 + 5). Row 1 likewise, but token 3
    itself counts among what is left: 8 / 16; another token of that row: 2 / (1 + 2 + 5)."""
    odds = torch.log(torch.tensor([[1.0, 2, 5, 8], [1, 2, 5, 8]]))
    rows, tokens = np.array([0, 1, 1]), np.array([1, 3, 1])
    suppression = Suppression(everywhere=[3])
    log_z = suppression.log_z(odds.clone(), start_row=0)[rows]
    found = suppression.logprobs(odds[rows, tokens], log_z, tokens, rows == 0)
    np.testing.assert_allclose(found, np.log([2 / 8, 8 / 16, 2 / 8]), rtol=1e-6)
    first = Suppression(at_start=[2, 3]).sum_logprob(odds.clone(), [1, 0])
    assert first == pytest.approx(np.log(2 / 3) + np.log(1 / 16), rel=1e-6)


def test_ctc_collapse_by_hand():
    assert ctc_collapse([0, 1, 1, 0, 1, 2, 2, 0], blank=0) == (1, 1, 2)


@pytest.mark.slow
def test_whisper_tiny_en_scores_like_its_float32_self():
    """The pinned model: the int8 scores of a tone's transcripts stay within 2 nats of float32's."""
    from relisten.io.sources import resolve_model

    folder = resolve_model("whisper-tiny.en")
    tone = np.sin(np.arange(32_000) * 0.05).astype(np.float32) * 0.1
    int8 = CTranslate2Whisper(folder, "cpu").decode([tone])[0].hypotheses
    exact = CTranslate2Whisper(folder, "cpu", "float32").decode([tone])[0].hypotheses
    by_text = {h.text: h.scores["asr"] for h in exact}
    shared = [h for h in int8 if h.text in by_text]
    assert len(shared) >= 3
    for hypothesis in shared:
        assert abs(hypothesis.scores["asr"] - by_text[hypothesis.text]) < 2.0


@pytest.mark.slow
def test_whisper_tiny_en_scores_given_texts_as_its_search_does():
    """The pinned model on real speech: a hypothesis of beam or samples that `tokens` spells as the
    search did has the same score: to 1e-3 in float32; in int8, whose rounding depends on what is
    computed together, to 1.5 nats each and a median of 0.2."""
    from relisten.io.audio import load_audio
    from relisten.io.sources import resolve_model

    folder = resolve_model("whisper-tiny.en")
    speech = load_audio(sorted(resolve_model("demo-speech").glob("*.*"))[0], duration_s=6.0)
    for dtype, tolerance, median in (("float32", 1e-3, 1e-3), ("int8", 1.5, 0.2)):
        whisper = CTranslate2Whisper(folder, "cpu", dtype)
        [result] = whisper.decode([speech], DecodingOptions(samples=5))
        ids_of = {h.text: whisper.tokens(h.text) for h in result.hypotheses}
        own = [h for h in result.hypotheses if whisper._decode(ids_of[h.text]).strip() == h.text]
        given = whisper.scorer(speech, result.window).score([h.text for h in own])
        off = [abs(g.scores["asr"] - h.scores["asr"]) for g, h in zip(given, own, strict=True)]
        canonical = sorted(off)[: 2 * len(off) // 3]  # the rest may have been proposed in pieces
        assert len(canonical) >= 5
        assert max(canonical) < tolerance
        assert np.median(canonical) < median
