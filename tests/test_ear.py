"""Letters by ear: CTC against all alignments counted by hand, padding, and what training leaves."""

from itertools import product

import numpy as np
import pytest
import torch

from relisten.core.recombination import Change
from relisten.core.types import ModelError
from relisten.speech.ear import STEPS, UNSAYABLE, Ear, alphabet_of
from relisten.tasks.corpus import Heard
from relisten.tasks.examples import Example, fold_of, make_example
from relisten.tasks.train_ear import altered, school_ears, train_ear

FRAME_DIM = 5
SOUNDS = {" ": 0, "a": 1, "b": 2}


def ear(seed: int = 0) -> Ear:
    torch.manual_seed(seed)
    return Ear(FRAME_DIM, " ab", "encoder", 2, width=8).eval()


def frames(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, FRAME_DIM)).astype(np.float32)


def said(text: str, seed: int, speaker: str = "s") -> Heard:
    """Each letter is its own direction for three frames, plus noise."""
    rng = np.random.default_rng(seed)
    clean = np.repeat(4 * np.eye(FRAME_DIM)[[SOUNDS[c] for c in text]], 3, axis=0)
    noisy = (clean + rng.normal(scale=0.3, size=clean.shape)).astype(np.float16)
    ends = tuple(0.12 * (i + 1) for i, c in enumerate(text + " ") if c == " ")
    return Heard(f"u{seed}", speaker, text, ends, noisy, 0.04)


class Letters:
    """A text encoder whose tokens are letters."""

    def words(self, text: str) -> list[list[int]]:
        return [[SOUNDS[c] for c in word] for word in text.split()]


def example(seed: int, speaker: str = "s") -> Example:
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(["a", "b"], rng.integers(1, 4))) for _ in range(3)]
    made = make_example(said(" ".join(words), seed, speaker), Letters())
    assert made is not None
    return made


def test_a_score_sums_all_alignments():
    """Two frames make four steps; of 4^4 paths those count that, repeats and blanks taken away,
    spell the text."""
    model = ear()
    heard = model.hear(frames(2))
    assert heard.shape == (2, STEPS, 4)
    log_probs = heard.reshape(4, 4).astype(np.float64)
    texts = ["a", "ab", "aa", "b a", ""]
    for text, score in zip(texts, model.score(heard, texts), strict=True):
        total = -np.inf
        for path in product(range(4), repeat=4):
            spelled = [c for i, c in enumerate(path) if c and (i == 0 or path[i - 1] != c)]
            if spelled == model.letters(text):
                total = np.logaddexp(total, sum(log_probs[i, c] for i, c in enumerate(path)))
        assert score == pytest.approx(total, abs=1e-5), text


CHANGES = [
    Change(1, 2, ("bb",)),
    Change(0, 1, ()),
    Change(3, 3, ("ab", "a")),
    Change(2, 4, ("a",)),
    Change(0, 0, ("b",)),
]


def whole_difference(model: Ear, heard: np.ndarray, base: tuple[str, ...]) -> np.ndarray:
    texts = [" ".join(words) for words in (base, *(change.of(base) for change in CHANGES))]
    scores = model.score(heard, texts)
    return scores[1:] - scores[0]


def test_changes_of_a_short_text_cost_what_they_cost():
    """All its words are near every change."""
    model = ear()
    heard = model.hear(frames(20))
    base = ("ab", "a", "bb", "ba")
    wide = [change for change in CHANGES if change.start <= 2 and change.stop >= 2]
    found = model.score_changes(heard, base, model.letter_ends(heard, base), CHANGES)
    expected = whole_difference(model, heard, base)
    for change, a, b in zip(CHANGES, found, expected, strict=True):
        if change in wide:
            assert a == pytest.approx(b, abs=1e-4)
    assert len(wide) == 2
    assert model.score_changes(heard, base, np.zeros(0, int), []).tolist() == []


def test_changes_of_a_long_text_cost_nearly_what_they_cost():
    """What is clearly heard stands where it stands, whatever is said far from it."""
    model = ear()
    base = ("ab", "a", "bb", "ba", *["ab", "ba"] * 6)
    letters = model.letters(" ".join(base))
    heard = np.full((2 * len(letters), STEPS, 4), -6.0, np.float32)
    heard[:, 1, 0] = -0.01  # a blank behind each letter
    for i, letter in enumerate(letters):
        heard[2 * i : 2 * i + 2, 0, letter] = -0.3
    found = model.score_changes(heard, base, model.letter_ends(heard, base), CHANGES)
    assert found == pytest.approx(whole_difference(model, heard, base), abs=1.0)
    assert (found < -2).all()


def test_a_word_of_a_long_recording_is_not_spared_the_rest():
    """On a telephone call of 30 s a list held "Hello" alone. What was -20 nats a letter at least
    made it the likeliest text: it had so few letters."""
    model = ear()
    heard = np.full((400, STEPS, 4), np.log(0.01), np.float32)  # "ab" all along, almost surely
    heard[..., 0] = heard[:, 0, 2] = heard[:, 1, 3] = np.log(0.97)
    heard[:, 0, 0] = heard[:, 1, 0] = np.log(0.01)
    short, whole = model.score(heard, ["a", "ab" * 400])
    assert whole == pytest.approx(800 * np.log(0.97), abs=1)
    assert short < 400 * np.log(0.01)  # "a" all along: wrong every other step
    assert short < whole


def test_what_cannot_be_said_and_what_is_not_known():
    model = ear()
    heard = model.hear(frames(2))
    assert model.score(heard, ["aaaaaa"])[0] == UNSAYABLE * 7
    assert model.score(heard, ["aé", "a"])[0] == model.score(heard, ["a"])[0]
    assert model.letters("A, B!") == model.letters("a b") == [2, 1, 3]


def test_padding_does_not_reach_the_speech():
    model = ear()
    one, other = frames(7, 1), frames(12, 2)
    padded = torch.zeros(2, 12, FRAME_DIM)
    padded[0, :7], padded[1] = torch.from_numpy(one), torch.from_numpy(other)
    with torch.inference_mode():
        both = model(padded, torch.tensor([7, 12])).numpy()
    np.testing.assert_allclose(both[0, :14], model.hear(one).reshape(14, -1), atol=1e-5)
    np.testing.assert_allclose(both[1], model.hear(other).reshape(24, -1), atol=1e-5)


def test_saved_and_loaded(tmp_path):
    model = ear()
    model.save(tmp_path / "ear.safetensors")
    loaded = Ear.load(tmp_path / "ear.safetensors")
    assert (loaded.alphabet, loaded.encoder_id, loaded.pool) == (" ab", "encoder", 2)
    np.testing.assert_allclose(loaded.hear(frames(9)), model.hear(frames(9)), atol=1e-2)
    (tmp_path / "noise.safetensors").write_bytes(b"noise")
    with pytest.raises(ModelError, match="not an ear"):
        Ear.load(tmp_path / "noise.safetensors")


def test_the_alphabet_is_of_what_is_said():
    assert alphabet_of(["At 3 o'clock", "Café"]) == " 'acefhklorté"


def test_it_learns_to_spell(tmp_path):
    """After training, unseen utterances cost little, and least by their own letters."""
    train = [example(seed) for seed in range(60)]
    unseen = [example(1000 + seed) for seed in range(10)]
    torch.manual_seed(0)
    model = Ear(FRAME_DIM, " ab", width=32)
    nats = train_ear(model, [(train, 1.0)], unseen, 80, 0, tmp_path, lambda line: None)
    assert nats < 2.0
    for e in unseen:
        others = [other.heard.text for other in unseen]
        scores = model.score(model.hear(e.heard.frames), others)
        assert others[int(scores.argmax())] == e.heard.text


def test_nobody_is_spelled_by_an_ear_that_heard_them(tmp_path):
    examples = [example(seed, f"s{seed % 6}") for seed in range(24)]
    dev = [example(2000)]
    corpus = [(examples[:12], 1.0), (examples[12:], 2.0)]
    assert {fold_of(e.heard.speaker, 2) for e in examples} == {0, 1}
    whole = school_ears(tmp_path, corpus, dev, "encoder", 2, 2, 3, 0, lambda line: None)
    names = ["ear", "ear-fold0", "ear-fold1"]
    assert sorted(p.stem for p in tmp_path.glob("*.safetensors")) == names
    for e in examples:
        assert e.speech.letters is not None
        own = whole.hear(e.heard.frames)
        assert own.shape == e.speech.letters.shape
        assert not np.allclose(own, e.speech.letters, atol=1e-3)
        assert e.chunks.shape[1] == 4 * (FRAME_DIM + 1 + 3) + 1
    np.testing.assert_allclose(whole.hear(dev[0].heard.frames), dev[0].speech.letters, atol=1e-2)
    again = school_ears(tmp_path, corpus, dev, "encoder", 2, 2, 3, 0, lambda line: None)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, msg=name)


def test_altered_frames_are_stretched_and_have_gaps():
    rng = np.random.default_rng(0)
    original = frames(100)
    lengths = {len(altered(original, rng)) for _ in range(20)}
    assert 88 <= min(lengths) < max(lengths) <= 115
    assert len(altered(frames(1), rng)) == 1
