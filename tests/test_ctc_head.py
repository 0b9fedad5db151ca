"""The CTC head: scores against all alignments counted by hand, padding, and training."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from relisten.core.recombination import Change
from relisten.core.types import ModelError
from relisten.speech.ctc.head import STEPS, CTCHead, alphabet_of
from relisten.speech.ctc.likelihood import UNSAYABLE
from relisten.tasks.training.cross_fit import fold_of
from relisten.tasks.training.ctc import altered, cross_fit_ctc, ctc_schedule, train_ctc
from relisten.tasks.training.examples import Example, TrainingData, make_example
from relisten.tasks.training.features import CachedUtterance
from relisten.tasks.training.run import Run

FRAME_DIM = 5
SOUNDS = {" ": 0, "a": 1, "b": 2}


def ctc_head(seed: int = 0) -> CTCHead:
    torch.manual_seed(seed)
    return CTCHead(FRAME_DIM, " ab", "encoder", 2, width=8).eval()


def frames(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, FRAME_DIM)).astype(np.float32)


def cached(text: str, seed: int, speaker: str = "s") -> CachedUtterance:
    """Each letter is its own direction for three frames, plus noise."""
    rng = np.random.default_rng(seed)
    clean = np.repeat(4 * np.eye(FRAME_DIM)[[SOUNDS[c] for c in text]], 3, axis=0)
    noisy = (clean + rng.normal(scale=0.3, size=clean.shape)).astype(np.float16)
    ends = tuple(0.12 * (i + 1) for i, c in enumerate(text + " ") if c == " ")
    return CachedUtterance(f"u{seed}", speaker, text, ends, noisy, 0.04)


class Letters:
    """A text encoder whose tokens are letters."""

    def words(self, text: str) -> list[list[int]]:
        return [[SOUNDS[c] for c in word] for word in text.split()]


def example(seed: int, speaker: str = "s") -> Example:
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(["a", "b"], rng.integers(1, 4))) for _ in range(3)]
    made = make_example(cached(" ".join(words), seed, speaker), Letters())
    assert made is not None
    return made


def test_a_score_sums_all_alignments():
    """Two frames make four steps; of 4^4 paths those count that, repeats and blanks taken away,
    spell the text."""
    model = ctc_head()
    output = model.log_probs(frames(2))
    assert output.shape == (2, STEPS, 4)
    log_probs = output.reshape(4, 4).astype(np.float64)
    texts = ["a", "ab", "aa", "b a", ""]
    for text, score in zip(texts, model.score(output, texts), strict=True):
        total = -np.inf
        for path in product(range(4), repeat=4):
            spelled = [c for i, c in enumerate(path) if c and (i == 0 or path[i - 1] != c)]
            if spelled == model.labels(text):
                total = np.logaddexp(total, sum(log_probs[i, c] for i, c in enumerate(path)))
        assert score == pytest.approx(total, abs=1e-5), text


CHANGES = [
    Change(1, 2, ("bb",)),
    Change(0, 1, ()),
    Change(3, 3, ("ab", "a")),
    Change(2, 4, ("a",)),
    Change(0, 0, ("b",)),
]


def whole_difference(model: CTCHead, log_probs: np.ndarray, base: tuple[str, ...]) -> np.ndarray:
    texts = [" ".join(words) for words in (base, *(change.of(base) for change in CHANGES))]
    scores = model.score(log_probs, texts)
    return scores[1:] - scores[0]


def test_changes_of_a_short_text_cost_what_they_cost():
    """All its words are near every change."""
    model = ctc_head()
    log_probs = model.log_probs(frames(20))
    base = ("ab", "a", "bb", "ba")
    wide = [change for change in CHANGES if change.start <= 2 and change.stop >= 2]
    found = model.score_changes(log_probs, base, model.label_ends(log_probs, base), CHANGES)
    expected = whole_difference(model, log_probs, base)
    for change, a, b in zip(CHANGES, found, expected, strict=True):
        if change in wide:
            assert a == pytest.approx(b, abs=1e-4)
    assert len(wide) == 2
    assert model.score_changes(log_probs, base, np.zeros(0, int), []).tolist() == []


def test_changes_of_a_long_text_cost_nearly_what_they_cost():
    """A clear alignment stays where it is, whatever changes far from it."""
    model = ctc_head()
    base = ("ab", "a", "bb", "ba", *["ab", "ba"] * 6)
    labels = model.labels(" ".join(base))
    log_probs = np.full((2 * len(labels), STEPS, 4), -6.0, np.float32)
    log_probs[:, 1, 0] = -0.01  # a blank behind each letter
    for i, letter in enumerate(labels):
        log_probs[2 * i : 2 * i + 2, 0, letter] = -0.3
    found = model.score_changes(log_probs, base, model.label_ends(log_probs, base), CHANGES)
    assert found == pytest.approx(whole_difference(model, log_probs, base), abs=1.0)
    assert (found < -2).all()


def test_a_short_text_pays_for_the_rest_of_a_long_recording():
    """On a telephone call of 30 s a list held "Hello" alone. Scores were once at least -20 nats per
    letter, which made it the best text: it had so few letters."""
    model = ctc_head()
    log_probs = np.full((400, STEPS, 4), np.log(0.01), np.float32)  # "ab" all along, almost surely
    log_probs[..., 0] = log_probs[:, 0, 2] = log_probs[:, 1, 3] = np.log(0.97)
    log_probs[:, 0, 0] = log_probs[:, 1, 0] = np.log(0.01)
    short, whole = model.score(log_probs, ["a", "ab" * 400])
    assert whole == pytest.approx(800 * np.log(0.97), abs=1)
    assert short < 400 * np.log(0.01)  # "a" all along: wrong every other step
    assert short < whole


def test_too_many_letters_and_unknown_letters():
    model = ctc_head()
    log_probs = model.log_probs(frames(2))
    assert model.score(log_probs, ["aaaaaa"])[0] == UNSAYABLE * 7
    assert model.score(log_probs, ["aé", "a"])[0] == model.score(log_probs, ["a"])[0]
    assert model.labels("A, B!") == model.labels("a b") == [2, 1, 3]


def test_padding_does_not_change_the_speech():
    model = ctc_head()
    one, other = frames(7, 1), frames(12, 2)
    padded = torch.zeros(2, 12, FRAME_DIM)
    padded[0, :7], padded[1] = torch.from_numpy(one), torch.from_numpy(other)
    with torch.inference_mode():
        both = model(padded, torch.tensor([7, 12])).numpy()
    np.testing.assert_allclose(both[0, :14], model.log_probs(one).reshape(14, -1), atol=1e-5)
    np.testing.assert_allclose(both[1], model.log_probs(other).reshape(24, -1), atol=1e-5)


def test_saved_and_loaded(tmp_path):
    model = ctc_head()
    model.save(tmp_path / "ctc_head.safetensors")
    loaded = CTCHead.load(tmp_path / "ctc_head.safetensors")
    assert (loaded.alphabet, loaded.encoder_id, loaded.pool) == (" ab", "encoder", 2)
    np.testing.assert_allclose(loaded.log_probs(frames(9)), model.log_probs(frames(9)), atol=1e-2)
    (tmp_path / "noise.safetensors").write_bytes(b"noise")
    with pytest.raises(ModelError, match="not a CTC head"):
        CTCHead.load(tmp_path / "noise.safetensors")


def test_the_alphabet_is_that_of_the_spoken_form():
    assert alphabet_of(["At 3 o'clock", "Café"]) == " 'acefhklorté"


def test_it_learns_to_spell(tmp_path):
    """After training, unseen utterances cost little, and least by their own letters."""
    train = [example(seed) for seed in range(60)]
    unseen = [example(1000 + seed) for seed in range(10)]
    torch.manual_seed(0)
    model = CTCHead(FRAME_DIM, " ab", width=32)
    nats = train_ctc(
        model,
        TrainingData([(train, 1.0)], unseen),
        ctc_schedule(model, 80),
        Run(tmp_path, 0, quiet),
    )
    assert nats < 2.0
    for e in unseen:
        others = [other.cached.text for other in unseen]
        scores = model.score(model.log_probs(e.cached.frames), others)
        assert others[int(scores.argmax())] == e.cached.text


def quiet(line: str) -> None:
    pass


def test_nobody_is_scored_by_a_head_trained_on_them(tmp_path, monkeypatch):
    """The head of a fold is the same, to the bit, whatever the speech of its speakers; that of the
    other fold, which is trained on them, is not. And their log-probabilities are its own."""
    monkeypatch.setattr("relisten.tasks.training.ctc.BATCH_FRAMES", 128)

    def cross_fit(name: str, examples: list[Example], dev: list[Example]) -> CTCHead:
        (tmp_path / name).mkdir(exist_ok=True)
        data = TrainingData([(examples[:12], 1.0), (examples[12:], 2.0)], dev)
        return cross_fit_ctc(3, 2, "encoder", 2, data, Run(tmp_path / name, 0, quiet))

    examples = [example(seed, f"s{seed % 6}") for seed in range(24)]
    dev = [example(2000)]
    assert {fold_of(e.cached.speaker, 2) for e in examples} == {0, 1}
    whole = cross_fit("a", examples, dev)
    names = ["ctc-fold0", "ctc-fold1", "ctc_head"]
    assert sorted(p.stem for p in (tmp_path / "a").glob("*.safetensors")) == names
    for e in examples:
        assert e.speech.ctc_log_probs is not None
        fold = CTCHead.load(tmp_path / "a" / f"ctc-fold{fold_of(e.cached.speaker, 2)}.safetensors")
        held_out, own = fold.log_probs(e.cached.frames), whole.log_probs(e.cached.frames)
        np.testing.assert_allclose(held_out, e.speech.ctc_log_probs, atol=1e-2)
        assert not np.allclose(own, e.speech.ctc_log_probs, atol=1e-3)
        assert e.chunk_features().shape[1] == 4 * (FRAME_DIM + 1 + 3) + 1
    np.testing.assert_allclose(
        whole.log_probs(dev[0].cached.frames), dev[0].speech.ctc_log_probs, atol=1e-2
    )
    again = cross_fit("a", examples, dev)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, msg=name)
    altered = [
        replace(e, cached=replace(e.cached, frames=e.cached.frames[::-1].copy()))
        if fold_of(e.cached.speaker, 2) == 0
        else e
        for e in examples
    ]
    cross_fit("b", altered, dev)
    same = []
    for name in names:
        a, b = (load_file(tmp_path / run / f"{name}.safetensors") for run in ("a", "b"))
        same.append(all(torch.equal(a[key], b[key]) for key in a))
    assert same == [True, False, False]


def test_altered_frames_are_stretched_and_have_gaps():
    rng = np.random.default_rng(0)
    original = frames(100)
    lengths = {len(altered(original, rng)) for _ in range(20)}
    assert 88 <= min(lengths) < max(lengths) <= 115
    assert len(altered(frames(1), rng)) == 1
