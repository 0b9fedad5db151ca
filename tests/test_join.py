"""Lists of several recognisers joined on the scale of the first, with hand-made recognisers."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from relisten.apps.cli import main
from relisten.core.combine import merge_hypotheses
from relisten.core.text import normaliser
from relisten.core.tune import fit_weights
from relisten.core.types import Hypothesis, ModelError, NBest, UsageError
from relisten.io.nbest import load_nbest, save_nbest
from relisten.speech.codebook import Codebook
from relisten.speech.ctc.head import CTCHead
from relisten.speech.first_pass import DecodingOptions, FirstPassResult
from relisten.tasks.frontend import SpeechFrontend
from relisten.tasks.hypotheses.join import join_lists, written_like
from relisten.tasks.hypotheses.propose import make_proposer
from relisten.tasks.nbest import make_nbest

ENGLISH = normaliser("english")
DIM = 4


class Encoder:
    id, frame_rate_hz, dim = "hand-made", 50.0, DIM

    def encode(self, audio: list[np.ndarray]) -> list[np.ndarray]:
        return [np.ones((len(a) // 320, DIM), np.float32) for a in audio]


class Recogniser:
    """Proposes `said`, pairs of text and asr; gives any other text -10 a letter of its tokens.

    With capitals = False it is a letter recogniser: texts that differ in case are one to it.
    """

    max_duration_s, encoder = 2.0, Encoder()

    def __init__(self, name: str, *said: tuple[str, float], capitals: bool = True) -> None:
        self.name, self.said, self.capitals = name, said, capitals
        self.asked: list[str] = []
        self.seeds: list[int] = []

    def decode(
        self,
        audio: list[np.ndarray],
        options: DecodingOptions = DecodingOptions(),
        *,
        timed: bool = True,
    ) -> list[FirstPassResult]:
        self.seeds.append(options.seed)
        results = tuple(Hypothesis(text, {"asr": asr}, self.ends(text)) for text, asr in self.said)
        return [FirstPassResult(results, frames, frames) for frames in self.encoder.encode(audio)]

    def scorer(
        self, recording: np.ndarray, window: np.ndarray | None = None, context: int | None = None
    ) -> Recogniser:
        return self

    def score(self, texts: list[str], *, timed: bool = True) -> tuple[Hypothesis, ...]:
        self.asked += texts
        return tuple(
            Hypothesis(t, {"asr": -10.0 * len(self.tokens(t))}, self.ends(t)) for t in texts
        )

    def align(
        self, audio: list[np.ndarray], texts: list[list[str]], frames: list[np.ndarray]
    ) -> list[list[tuple[float, ...]]]:
        return [[self.ends(text) for text in some] for some in texts]

    def tokens(self, text: str) -> tuple[int, ...]:
        text = text if self.capitals else "".join(filter(str.isalpha, text.lower()))
        return tuple(map(ord, text))

    def ends(self, text: str) -> tuple[float, ...]:
        return tuple(len(self.name) / 10 + i for i in range(len(text.split())))


def joined(*recognisers: Recogniser, further: tuple[Hypothesis, ...] = (), key=ENGLISH):
    audio = [np.zeros(16_000, np.float32)]
    results = [recogniser.decode(audio) for recogniser in recognisers]
    [hypotheses] = join_lists(audio, recognisers, results, [further], key)
    return hypotheses


def test_every_hypothesis_gets_every_score() -> None:
    """`a` proposed two, `b` two, "Yes." both: what one did not propose, it is asked for."""
    a = Recogniser("a", ("Yes.", -1.0), ("No.", -2.0))
    b = Recogniser("bb", ("Yes.", -0.5), ("Oh?", -3.0))
    found = joined(a, b)
    assert [h.text for h in found] == ["Yes.", "No.", "Oh?"]
    assert [h.scores for h in found] == [
        {"asr": -1.0, "asr.bb": -0.5},
        {"asr": -2.0, "asr.bb": -30.0},
        {"asr": -30.0, "asr.bb": -3.0},
    ]
    assert (a.asked, b.asked) == (["Oh?"], ["No."])
    assert {h.word_ends_s for h in found} == {(0.1,)}, "all by the first"


def test_the_first_named_gives_the_scale() -> None:
    a, b = Recogniser("a", ("Yes.", -1.0)), Recogniser("bb", ("Oh?", -3.0))
    assert [h.text for h in joined(b, a)] == ["Oh?", "Yes."]
    assert [sorted(h.scores) for h in joined(b, a)] == [["asr", "asr.a"]] * 2
    assert joined(b, a)[0].scores["asr"] == -3.0
    assert joined(b, a)[1].word_ends_s == (0.2,)


def test_ways_to_write_a_text_add_up_where_they_differ() -> None:
    """To `a` all three are different: -1, and -30 twice from "yes" and "Yes"; of the letter
    recogniser's two own, log-summed, "Yes." is a third way to write, but no third sequence."""
    a = Recogniser("a", ("Yes.", -1.0))
    ctc_log_probs = Recogniser("ctc", ("YES", -2.0), capitals=False)
    [one] = joined(a, ctc_log_probs, further=(Hypothesis("Yes"), Hypothesis("Yes!")))
    assert one.text == "Yes."
    expected = np.logaddexp(-1.0, np.logaddexp(-30.0, -40.0))
    assert one.scores["asr"] == pytest.approx(expected, abs=1e-12)
    assert one.scores["asr.ctc"] == -2.0
    assert a.asked == ["Yes", "Yes!"], "YES is written like its own: Yes."
    assert ctc_log_probs.asked == []


def test_unmerged_only_texts_equal_to_the_letter_are_one() -> None:
    a = Recogniser("a", ("Yes.", -1.0), ("Yes!", -2.0))
    b = Recogniser("bb", ("Yes.", -0.5), ("Yes", -3.0))
    found = joined(a, b, key=normaliser("none"))
    assert [h.text for h in found] == ["Yes.", "Yes!", "Yes"]
    assert [h.scores["asr"] for h in found] == [-1.0, -2.0, -30.0]


def test_given_hypotheses_keep_their_keys_and_lose_their_scores() -> None:
    a = Recogniser("a", ("Yes.", -1.0))
    given = (
        Hypothesis("Yes", {"asr": 5.0}, extra={"cloud": 1}),
        Hypothesis("Oh no", {"text": -7.0}, (9.0, 9.0), extra={"cloud": 2}),
    )
    found = joined(a, further=given)
    assert [(h.text, dict(h.extra)) for h in found] == [
        ("Yes.", {"cloud": 1}),
        ("Oh no", {"cloud": 2}),
    ]
    assert found[1].scores == {"asr": -50.0}
    assert found[1].word_ends_s == (0.1, 1.1)


def test_nothing_was_heard() -> None:
    a = Recogniser("a")
    assert joined(a) == ()
    assert [h.text for h in joined(a, Recogniser("bb", ("Oh?", -3.0)))] == ["Oh?"]


def test_every_score_can_be_tuned() -> None:
    """No hypothesis lacks one, so `tune` weighs them all; here only the second recogniser knows."""
    a, b = Recogniser("a", ("Yes.", -1.0), ("No.", -2.0)), Recogniser("bb", ("No.", -0.5))
    lists = [NBest(f"u{i}", joined(a, b), reference="no") for i in range(6)]
    result = fit_weights(lists, folds=2)
    assert result.left_out == ()
    assert set(result.weights.values) == {"asr", "asr.bb", "length"}
    assert result.first_pass_wer == 1.0
    assert result.fitted_wer == 0.0


def test_later_merging_adds_up_every_first_pass() -> None:
    """0.25 + 0.25 = 0.5 of the further one, too; other scores are the first one's."""
    quarter = float(np.log(0.25))
    same = tuple(Hypothesis(t, {"asr": -1.0, "asr.b": quarter, "text": -9.0}) for t in ("a", "A"))
    [one] = merge_hypotheses(NBest("u", same), ENGLISH).hypotheses
    assert one.scores["asr.b"] == pytest.approx(np.log(0.5))
    assert one.scores["asr"] == pytest.approx(-1.0 + np.log(2))
    assert one.scores["text"] == -9.0


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("mary saw i and the lamp", "Mary saw I and the lamp."),
        ("THE LAMB", "The lamb."),
        ("and mary", "And Mary."),
        ("Already So", "Already So"),
        ("", ""),
    ],
)
def test_written_like_the_first_pass(text: str, written: str) -> None:
    """ "The" begins one of them, and is seen small in another; "Mary" is never seen small."""
    models = ("Mary saw the lamb.", "Mary and I saw the lamb.", "The lamb saw Mary")
    assert written_like(text, models) == written
    assert written_like("the lamb", ("THE LAMP", "A LAMB")) == "THE LAMB"
    assert written_like("the lamb", ()) == written_like("the lamb", ("",)) == "the lamb"


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    """Four recordings of one second, the third of them missing; the second has a hypothesis."""
    for i in (0, 1, 3):
        with wave.open(str(tmp_path / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 16_000, "NONE", ""))
            file.writeframes(bytes(32_000))
    lines = [NBest(f"u{i}", audio=f"{i}.wav") for i in range(4)]
    lines[1] = NBest("u1", (Hypothesis("Maybe."),), audio="1.wav")
    save_nbest(lines, tmp_path / "manifest.jsonl")
    return str(tmp_path / "manifest.jsonl")


@pytest.fixture
def recognisers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Recogniser]:
    made = {
        "a": Recogniser("a", ("Yes.", -1.0), ("No.", -2.0)),
        "b": Recogniser("bb", ("Yes.", -0.5), ("Oh?", -3.0)),
    }
    monkeypatch.setattr("relisten.tasks.loading.load_first_pass", lambda name, *_: made[name])
    return made


@pytest.mark.parametrize("samples", [0, 2])
def test_in_is_out_plus_refused_and_resumed_alike(
    tmp_path: Path, manifest: str, recognisers: dict[str, Recogniser], samples: int
) -> None:
    whole, torn = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl"
    options = {"first_pass": ("a", "b"), "decoding": DecodingOptions(samples=samples)}
    outcome = make_nbest(manifest, str(whole), **options)
    assert outcome.n_done == 3
    assert [refusal.id for refusal in outcome.refused] == ["u2"]
    texts = [[h.text for h in u.hypotheses] for u in load_nbest(whole)]
    assert texts == [
        ["Yes.", "No.", "Oh?"],
        ["Yes.", "No.", "Oh?", "Maybe."],
        ["Yes.", "No.", "Oh?"],
    ]
    assert recognisers["a"].seeds == recognisers["b"].seeds
    lines = whole.read_bytes().splitlines(keepends=True)
    torn.with_name("torn.jsonl.partial").write_bytes(lines[0] + lines[1][:20])
    assert make_nbest(manifest, str(torn), **options, resume=True).n_done == 3
    assert torn.read_bytes() == whole.read_bytes()


def test_one_first_pass_alone_is_as_it_was(
    tmp_path: Path, manifest: str, recognisers: dict[str, Recogniser]
) -> None:
    make_nbest(manifest, str(tmp_path / "out"), first_pass=("a",))
    assert recognisers["a"].asked == ["Maybe."]
    first, second, _ = load_nbest(tmp_path / "out")
    assert [dict(h.scores) for h in first.hypotheses] == [{"asr": -1.0}, {"asr": -2.0}]
    assert second.hypotheses[2].scores == {"asr": -60.0}


def test_two_of_one_name_are_refused(manifest: str, recognisers: dict[str, Recogniser]) -> None:
    with pytest.raises(UsageError, match="2 first passes are called 'a'"):
        make_nbest(manifest, "-", first_pass=("a", "a"))


def test_words_without_proposals_are_refused(manifest: str) -> None:
    with pytest.raises(UsageError, match=r"words\.txt.*set propose"):
        make_nbest(manifest, "-", words="words.txt")


@pytest.fixture
def frontend(monkeypatch: pytest.MonkeyPatch) -> SpeechFrontend:
    """A CTC head for " ab" that hears "ab b" in 8 steps, whatever the frames."""
    torch.manual_seed(0)
    ctc_head = CTCHead(DIM, " ab", Encoder.id, 1, width=8).eval()
    said = [2, 0, 3, 0, 1, 0, 3, 0]
    log_probs = np.log(np.full((8, 4), 0.04)).astype(np.float32)
    log_probs[range(8), said] = np.log(0.88)
    monkeypatch.setattr(ctc_head, "log_probs", lambda frames: log_probs.reshape(4, 2, 4))
    codebook = Codebook(np.zeros((1, 2, DIM), np.float32), 1, Encoder.id)
    made = SpeechFrontend(codebook, "hand-made", ctc_head=ctc_head)
    monkeypatch.setattr("relisten.tasks.frontend.load_encoder", lambda *_: Encoder())
    monkeypatch.setattr("relisten.tasks.frontend.load_frontend", lambda *_: made)
    return made


def test_the_ctc_head_proposes(
    tmp_path: Path, manifest: str, recognisers: dict[str, Recogniser], frontend: SpeechFrontend
) -> None:
    make_nbest(manifest, str(tmp_path / "free"), first_pass=("a",), propose=3)
    texts = [h.text for h in load_nbest(tmp_path / "free")[0].hypotheses]
    assert texts[:2] == ["Yes.", "No."]
    assert len(texts) == 5
    (tmp_path / "words.txt").write_text("Bab, a!\nBA ç\n")
    words = str(tmp_path / "words.txt")
    make_nbest(manifest, str(tmp_path / "known"), first_pass=("a",), propose=9, words=words)
    proposed = [h.text for h in load_nbest(tmp_path / "known")[0].hypotheses][2:]
    assert len(proposed) >= 3
    assert {w for text in proposed for w in text.lower().strip(".").split()} <= {
        *("bab", "a", "ba"),
        *("yes", "no"),
    }, "its own words, and the first pass's"


def test_proposals_come_with_the_first_pass_score(
    recognisers: dict[str, Recogniser], frontend: SpeechFrontend
) -> None:
    """So that nobody need ask for it again; `a` reads every text whole, whatever the context."""
    first, audio = recognisers["a"], np.zeros(16000, np.float32)
    decoded = first.decode([audio])
    proposer = make_proposer(frontend, 3)
    results = frontend.encode([audio], ("ctc",))
    [found] = proposer.propose([audio], first, decoded, results)
    assert len(found) == 3
    again = first.scorer(audio, decoded[0].window).score([h.text for h in found])
    assert [h.scores["asr"] for h in found] == [h.scores["asr"] for h in again]


def test_no_ctc_head_no_proposals(tmp_path: Path, frontend: SpeechFrontend) -> None:
    (tmp_path / "words.txt").write_text("ç 14")
    with pytest.raises(UsageError, match="holds no word that the CTC head has letters for"):
        make_proposer(frontend, 3, str(tmp_path / "words.txt"))
    with pytest.raises(UsageError, match="cannot be read"):
        make_proposer(frontend, 3, str(tmp_path / "nowhere.txt"))
    deaf = SpeechFrontend(frontend.codebook, "hand-made")
    with pytest.raises(ModelError, match="no CTC head to propose with"):
        make_proposer(deaf, 3)


def test_the_command_takes_several(
    tmp_path: Path, manifest: str, recognisers: dict[str, Recogniser]
) -> None:
    output = str(tmp_path / "out.jsonl")
    arguments = ["nbest", manifest, "-o", output, "--first-pass", "b", "--first-pass", "a"]
    done = CliRunner().invoke(main, [*arguments, "--quiet"])
    assert done.exit_code == 1, "one is refused"
    assert [h.text for h in load_nbest(output)[0].hypotheses] == ["Yes.", "Oh?", "No."]
