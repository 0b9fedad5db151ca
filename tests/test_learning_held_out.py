"""What is held out is new: speakers, recordings, texts. And what cannot be learnt from at all."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest

from relisten.core.types import NBest, UsageError
from relisten.io.nbest import load_nbest
from relisten.tasks.learning.held_out import MAX_RUN, hold_out, seen_references
from relisten.tasks.learning.suitable import check_utterance, count_scripts

SHARED = Path(__file__).parents[2] / "shared" / "data"


def shared(name: str) -> list[NBest]:
    manifest = SHARED / f"{name}.jsonl"
    if not manifest.exists():
        pytest.skip(f"{manifest} is not here")
    return load_nbest(manifest)


def utterance(n: int, speaker: str | None = None, **more) -> NBest:
    extra = {"speaker": speaker} if speaker else {}
    known = {"audio": f"{n}.wav", "duration_s": 2.0, "reference": f"text {n}", **more}
    return NBest(f"u{n}", extra=extra, **known)


def split(utterances, share=0.1, at_most=300, seed=0) -> tuple[list[NBest], list[NBest]]:
    """Checks what holds for every split: nothing lost, order kept, the same again, the bounds."""
    learnt, held = hold_out(utterances, share, at_most, seed)
    ids = {u.id for u in held}
    assert [u for u in utterances if u.id in ids] == held
    assert [u for u in utterances if u.id not in ids] == learnt
    assert all(u.reference is not None for u in held)
    assert any(u.reference is not None for u in learnt)
    assert 1 <= len(held) <= at_most
    assert hold_out(utterances, share, at_most, seed) == (learnt, held)
    return learnt, held


def hours(utterances: list[NBest]) -> float:
    return sum(u.duration_s for u in utterances) / 3600


def test_whole_speakers_of_real_speech_are_held_out():
    everything = shared("speechocean/train")
    learnt, held = split(everything)
    assert not {u.speaker for u in held} & {u.speaker for u in learnt}
    assert len({u.speaker for u in held}) >= 10
    assert hours(held) == pytest.approx(0.1 * hours(everything), rel=0.02)
    assert len(seen_references(held, learnt)) <= 3
    assert split(everything, seed=1)[1] != held


def test_texts_that_are_read_again_are_all_learnt_from():
    """cathy reads 1,142 sentences in 1,620 recordings: none held out is also learnt from."""
    everything = shared("cathy/train")
    learnt, held = split(everything)
    assert seen_references(held, learnt) == set()
    assert hours(held) == pytest.approx(0.1 * hours(everything), rel=0.02)
    drawn_alone = random.Random(0).sample(everything, len(held))
    rest = [u for u in everything if u not in drawn_alone]
    assert len(seen_references(drawn_alone, rest)) > len(held) / 4


def test_neighbours_of_a_story_stay_together():
    """186 lines: 18 held out are not 18 single lines between those learnt from, but 5 runs."""
    _, held = split(shared("ljspeech/train"))
    numbers = [int(u.id[2:5]) * 10_000 + int(u.id[6:]) for u in held]
    n_runs = 1 + sum(b - a > 2 for a, b in pairwise(numbers))
    assert n_runs <= 6 < len(held)


def test_files_are_neighbours_by_number():
    """In the order of letters, 2.wav would stand between 199.wav and 20.wav."""
    everything = [utterance(n) for n in range(400)]
    random.Random(0).shuffle(everything)
    _, held = split(everything)
    numbers = sorted(int(u.id[1:]) for u in held)
    assert len(numbers) == 40
    assert {n // MAX_RUN for n in numbers} == {n // MAX_RUN for n in numbers if n % MAX_RUN == 0}


def test_segments_of_a_recording_stay_together():
    everything = [
        utterance(n, audio=f"{n // 7}.wav", start_s=2.0 * (n % 7), reference=f"text {n % 3}")
        for n in range(140)
    ]
    learnt, held = split(everything)
    assert not {u.audio for u in held} & {u.audio for u in learnt}
    assert len(held) == 14


def test_of_lectures_that_are_all_too_long_neighbouring_segments_are_held_out():
    """Three of 400 segments, at most 100: four stretches of 25 neighbours."""
    everything = [
        utterance(n, audio=f"{n // 400}.wav", start_s=2.0 * (n % 400)) for n in range(1200)
    ]
    _, held = split(everything, share=0.2, at_most=100)
    assert {int(u.id[1:]) % 400 // 25 * 25 + int(u.id[1:]) // 400 * 400 for u in held} <= {
        int(u.id[1:]) for u in held
    }
    assert len(held) == 100


def test_few_speakers_or_few_known_ones_are_no_reason_to_hold_out_speakers():
    four = [utterance(n, speaker=f"s{n % 4}") for n in range(80)]
    _, held = split(four)
    assert len(held) == 8
    once = [utterance(n, speaker=f"s{n}") for n in range(400)]
    runs_of = {int(u.id[1:]) // MAX_RUN for u in split(once)[1]}
    assert len(runs_of) == 4
    mostly_unknown = [utterance(n, speaker=f"s{n // 3}" if n < 30 else None) for n in range(80)]
    _, held = split(mostly_unknown)
    assert not all(u.speaker for u in held)
    known = [utterance(n, speaker=f"s{n // 3}" if n < 45 else None) for n in range(80)]
    _, held = split(known)
    assert all(u.speaker for u in held)


def test_at_most_is_strict_where_speakers_are_large():
    """Five speakers of 100: at most 30 means recordings instead, at most 100 one speaker."""
    everything = [utterance(n, speaker=f"s{n % 5}") for n in range(500)]
    learnt, held = split(everything, share=0.2, at_most=30)
    assert 25 <= len(held) <= 30
    assert {u.speaker for u in held} <= {u.speaker for u in learnt}
    learnt, held = split(everything, share=0.2, at_most=100)
    assert len(held) == 100
    assert not {u.speaker for u in held} & {u.speaker for u in learnt}


def test_utterances_without_reference_are_never_held_out():
    everything = [utterance(n, reference=None if n % 2 else f"text {n}") for n in range(100)]
    learnt, held = split(everything, share=0.2)
    assert len(held) == 10
    assert len(learnt) == 90


def test_the_share_is_one_of_utterances_where_durations_are_not_known():
    _, held = split([utterance(n, duration_s=None) for n in range(200)], share=0.05)
    assert len(held) == 10


@pytest.mark.parametrize("n", [2, 3, 9])
def test_the_smallest_sets(n):
    """One is held out, one is learnt from, even where all have one text."""
    learnt, held = split([utterance(k) for k in range(n)])
    assert len(held) == 1
    learnt, held = split([utterance(k, reference="yes") for k in range(n)])
    assert seen_references(held, learnt) == {held[0].id}


def test_what_cannot_be_split_is_said():
    one_file = [utterance(n, audio="a.wav") for n in range(9)]
    for some in ([], [utterance(0)], one_file, [utterance(n, reference=None) for n in range(9)]):
        with pytest.raises(UsageError, match="nothing can be held out of"):
            hold_out(some, 0.1, 300, 0)
    for share, at_most in ((0.0, 10), (1.0, 10), (float("nan"), 10), (0.1, 0)):
        with pytest.raises(UsageError, match="give a share between 0 and 1"):
            hold_out(one_file, share, at_most, 0)


def test_references_are_the_same_but_for_case_and_punctuation():
    learnt = [utterance(1, reference="WE CALL IT, BEAR"), utterance(2, reference="...")]
    held = [utterance(n, reference=r) for n, r in enumerate(["We call it bear.", "bear", "!"], 3)]
    assert seen_references(held, learnt) == {"u3"}


def complaint(text: str | None, duration_s: float, others: list[str] | None = None) -> str:
    one = utterance(0, reference=text)
    some = [one, *(utterance(n, reference=other) for n, other in enumerate(others or [], 1))]
    return check_utterance(one, duration_s, count_scripts(some)) or ""


def test_real_speech_can_be_learnt_from():
    """All of it but cut-off sounds: the bounds leave out no real utterance."""
    for name in ("speechocean/train", "drascula/train", "kerstin/train", "amazonqueen/train"):
        some = shared(name)
        scripts = count_scripts(some)
        assert [why for u in some if (why := check_utterance(u, u.duration_s, scripts))] == []


def test_durations():
    assert complaint("yes", 0.1) == complaint("yes", 30.0) == complaint(None, 5.0) == ""
    assert complaint("yes", 0.05).startswith("lasts 0.05 s, which is no word")
    assert "at most 30 s are learnt from at once; cut it into segments" in complaint("yes", 30.01)
    assert complaint(None, 31.0).startswith("lasts 31.0 s")


def test_texts_that_do_not_fit_the_duration():
    """24 words in 2 s are just possible, 25 are not; 40 letters in 1 s, 41 not."""
    assert complaint("a " * 24, 2.0) == complaint("a" * 40, 1.0) == ""
    assert "25 words with 25 letters and digits do not fit into 2.00 s" in complaint("a " * 25, 2.0)
    assert "do not fit into 1.00 s" in complaint("a" * 41, 1.0)
    assert complaint("- " * 99 + "a", 1.0) == ""


def test_texts_without_a_word():
    for text in ("", " ", "...", "♪"):
        assert "holds no letter or digit" in complaint(text, 2.0)
    assert complaint("5", 2.0) == ""


def test_letters_of_a_script_that_the_others_do_not_use():
    """One in a thousand is the bound; in a small set nothing is unusual; Japanese has three."""
    german = ["Größe ist 5 µm, naïve Œuvre"] * 1000
    assert "has letters (cyrillic)" in complaint("Жар-птица", 2.0, german)
    assert complaint("Жар-птица", 2.0, [*german, "да"]) != ""
    assert complaint("Жар-птица", 2.0, [*german[:998], "да"]) == ""
    assert complaint("Жар-птица", 2.0, german[:99]) == ""
    assert complaint("Ünö", 2.0, german) == ""
    assert complaint("犬がコーヒー", 2.0, ["犬が", "コーヒー"] * 600) == ""
