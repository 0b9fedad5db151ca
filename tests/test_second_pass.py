"""One second pass: commands and Python choose alike; defaults keep their promise."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import relisten
from relisten.core.combine import Weights, combined_scores, with_context
from relisten.core.types import ASR, CTC, LENGTH, TEXT, FormatError, Hypothesis, NBest
from relisten.io.bundle import scoring_hash
from relisten.io.nbest import load_nbest, save_nbest
from relisten.tasks.bias import bias, read_phrases
from relisten.tasks.loading import load_listeners, load_rescorer
from relisten.tasks.nbest import make_nbest
from relisten.tasks.rescore import rescore
from relisten.tasks.score import score
from relisten.tasks.second_pass import SecondPass
from relisten.tasks.transcribe import transcribe
from relisten.tasks.tune import tune
from relisten.tasks.weights import SCORED_BY, UNTUNED_TEXT_WEIGHTS, load_weights, save_weights
from tiny_world import fill_cache, tiny_speech_bundle, write_noise

N_RECORDINGS = 3
WEIGHTS = Weights({ASR: 1.0, TEXT: 0.4, CTC: 0.2, LENGTH: 0.4})
DECODING = relisten.DecodingOptions(beam=4, n_best=4)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    """Tiny models under the known names, and a bundle whose CTC head proposes."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("world")
        fill_cache(patch, folder / "cache")
        for seed in range(N_RECORDINGS):
            write_noise(folder / f"{seed}.wav", seed, seconds=1.5)
        save_nbest(
            [NBest(f"u{i}", audio=f"{i}.wav") for i in range(N_RECORDINGS)],
            folder / "manifest.jsonl",
        )
        tiny_speech_bundle(folder / "bundle", WEIGHTS)
        yield folder


@pytest.fixture
def phrases(world: Path, tmp_path: Path) -> str:
    """What sounds like the longest word of the lists, with letters that are not its own."""
    manifest, lists, bundle = (
        str(p) for p in (world / "manifest.jsonl", tmp_path / "lists", world / "bundle")
    )
    make_nbest(manifest, lists, decoding=DECODING, propose=3, model=bundle)
    words = [word for one in load_nbest(lists) for text in texts(one) for word in text.split()]
    word = max(words, key=len)
    assert len(word) > 6
    (tmp_path / "phrases.txt").write_text(f"{word[:-1]}xy\t2\nfed\n")
    return str(tmp_path / "phrases.txt")


@pytest.mark.parametrize("is_rich", [False, True], ids=["plain", "proposals and phrases"])
def test_three_ways_to_one_result(world: Path, tmp_path: Path, phrases: str, is_rich: bool) -> None:
    """`transcribe`, `nbest` + `bias` + `score` + `rescore`, and `Rescorer`."""
    bundle = str(world / "bundle")
    audio = [str(world / f"{i}.wav") for i in range(N_RECORDINGS)]
    options = relisten.SecondPassOptions(
        propose=3 if is_rich else 0, phrases=read_phrases(phrases) if is_rich else ()
    )
    written = tmp_path / "written.json"
    transcribe(audio, str(written), format="json", model=bundle, decoding=DECODING, options=options)
    by_command = [json.loads(line)["text"] for line in written.read_text().splitlines()]

    names = ("nbest", "biased", "scored", "ranked")
    nbest, biased, scored, ranked = (str(tmp_path / f"{name}.jsonl") for name in names)
    make_nbest(
        str(world / "manifest.jsonl"),
        nbest,
        decoding=DECODING,
        propose=options.propose,
        model=bundle,
    )
    if is_rich:
        bias(nbest, biased, phrases, inject=True)
    score(biased if is_rich else nbest, scored, bundle)
    rescore(scored, ranked)
    by_files = load_nbest(ranked)

    rescorer = relisten.Rescorer.from_pretrained(bundle, decoding=DECODING, options=options)
    by_python = [one.segments[0].nbest for one in rescorer.transcribe_all(audio)]
    assert [one.hypotheses[0].text for one in by_python] == by_command

    for one, stored in zip(by_python, by_files, strict=True):
        assert one.hypotheses[0].text == stored.hypotheses[0].text
        by_text = {h.text: h.scores for h in stored.hypotheses}
        for hypothesis in one.hypotheses:
            assert hypothesis.scores == pytest.approx(by_text.pop(hypothesis.text), abs=1e-5)
        best = combined_scores(one, with_context(WEIGHTS))[0]
        for left_out in (h for h in stored.hypotheses if h.text in by_text):
            alone = NBest("x", (left_out,))
            assert combined_scores(alone, with_context(WEIGHTS))[0] < best, "pruned: it had lost"
    if is_rich:
        proposed = {h.text for one in by_files for h in one.hypotheses}
        own = {h.text for one in load_nbest(nbest) for h in one.hypotheses}
        assert proposed - own, "phrases were put in"
    else:
        again = rescorer.rescore(load_nbest(nbest), audio_beside=nbest)
        assert [texts(one) for one in again] == [texts(one) for one in by_files]


def texts(nbest: NBest) -> list[str]:
    return [hypothesis.text for hypothesis in nbest.hypotheses]


def test_paths_file_objects_and_arrays_are_one_recording(world: Path) -> None:
    rescorer = relisten.Rescorer.from_pretrained(str(world / "bundle"), decoding=DECODING)
    path = world / "0.wav"
    of_path = rescorer.transcribe(path)
    of_file = rescorer.transcribe(io.BytesIO(path.read_bytes()))
    samples = np.frombuffer(path.read_bytes()[44:], "<i2")
    of_array = rescorer.transcribe(samples, rate_hz=16_000)
    stereo = np.stack([samples, samples]).astype(np.float32) / 32_768
    of_floats = rescorer.transcribe(stereo, rate_hz=16_000)
    for one in (of_file, of_array, of_floats):
        assert [s.nbest.hypotheses for s in one.segments] == [
            s.nbest.hypotheses for s in of_path.segments
        ]
    assert of_path.audio == str(path)
    assert of_array.audio == "recording 1"
    assert of_path.to_srt().startswith("1\n00:00:0")
    assert of_path.to_vtt().startswith("WEBVTT")
    with pytest.raises(relisten.RelistenError, match="give rate_hz"):
        rescorer.transcribe(samples)
    with pytest.raises(relisten.RelistenError, match="shape"):
        rescorer.transcribe(samples[None, None], rate_hz=16_000)


def test_the_recogniser_is_loaded_once(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from relisten.tasks import loading

    loaded: list[str] = []
    load = loading.load_first_pass

    def counted(name: str, *rest: str):
        loaded.append(name)
        return load(name, *rest)

    monkeypatch.setattr(loading, "load_first_pass", counted)
    rescorer = relisten.Rescorer.from_pretrained(str(world / "bundle"), decoding=DECODING)
    assert loaded == []
    for _ in range(2):
        rescorer.transcribe(world / "0.wav")
    assert loaded == ["whisper-tiny.en"]


def test_several_first_passes(world: Path) -> None:
    names = ("whisper-tiny.en", "whisper-base")
    rescorer = relisten.Rescorer.from_pretrained(
        str(world / "bundle"), first_pass=names, decoding=DECODING
    )
    [segment] = rescorer.transcribe(world / "0.wav").segments
    assert all(f"{ASR}.whisper-base" in h.scores for h in segment.nbest.hypotheses)


@pytest.fixture
def scored(world: Path, tmp_path: Path) -> Path:
    make_nbest(str(world / "manifest.jsonl"), str(tmp_path / "nbest"), decoding=DECODING)
    score(str(tmp_path / "nbest"), str(tmp_path / "scored"), str(world / "bundle"))
    return tmp_path / "scored"


def test_rescore_uses_the_weights_of_what_scored(world: Path, scored: Path, tmp_path: Path) -> None:
    """Without --weights the file itself says whose they are. Once nothing but length counted."""
    record = load_nbest(scored)[0].extra[SCORED_BY]
    bundle = world / "bundle"
    assert record[TEXT] == record[CTC]
    assert record[TEXT] == {"model": str(bundle.resolve()), "hash": scoring_hash(bundle)}
    said: list[str] = []
    rescore(str(scored), str(tmp_path / "own"), say=said.append)
    assert said == [f"ranked with the weights of {bundle}: asr 1, text 0.4, ctc 0.2, length 0.4"]
    rescore(str(scored), str(tmp_path / "named"), load_weights(bundle))
    assert (tmp_path / "own").read_bytes() == (tmp_path / "named").read_bytes()
    ranked = load_nbest(tmp_path / "own")[0]
    assert np.all(np.diff(combined_scores(ranked, WEIGHTS)) <= 0)


def lose_record(nbest: NBest) -> NBest:
    return replace(nbest, extra={})


def other_hash(nbest: NBest) -> NBest:
    record = {name: {**one, "hash": "0"} for name, one in nbest.extra[SCORED_BY].items()}
    return replace(nbest, extra={SCORED_BY: record})


def other_model(nbest: NBest) -> NBest:
    record = {**nbest.extra[SCORED_BY], CTC: {"model": "another", "hash": "0"}}
    return replace(nbest, extra={SCORED_BY: record})


def lose_scores(nbest: NBest) -> NBest:
    kept = tuple(replace(h, scores={ASR: h.scores[ASR]}) for h in nbest.hypotheses)
    return replace(nbest, hypotheses=kept)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lose_record, r"not recorded in the lists.*--weights FILE\|BUNDLE"),
        (other_hash, r"as it was \(0\).*--weights FILE\|BUNDLE"),
        (other_model, r"several models \(.*another"),
        (lose_scores, "no model has scored these lists.*relisten score"),
    ],
)
def test_where_no_weights_belong_the_first_pass_ranks(
    scored: Path, tmp_path: Path, spoil: Callable[[NBest], NBest], what: str
) -> None:
    save_nbest(map(spoil, load_nbest(scored)), tmp_path / "spoilt")
    said: list[str] = []
    rescore(str(tmp_path / "spoilt"), str(tmp_path / "ranked"), say=said.append)
    [sentence] = said
    assert re.search(what, sentence)
    rescore(
        str(tmp_path / "spoilt"),
        str(tmp_path / "default"),
        Weights({ASR: 1.0, LENGTH: 0.4}),
    )
    assert (tmp_path / "ranked").read_bytes() == (tmp_path / "default").read_bytes()


def test_a_known_lm_has_weights_of_its_own(scored: Path, tmp_path: Path) -> None:
    """Nothing is fetched or loaded to find them."""
    score(str(tmp_path / "nbest"), str(tmp_path / "by-lm"), "smollm2-135m")
    said: list[str] = []
    rescore(str(tmp_path / "by-lm"), str(tmp_path / "ranked"), say=said.append)
    assert said == ["ranked with the weights of smollm2-135m: asr 1, text 0.3, length 0.4"]
    rescore(str(tmp_path / "by-lm"), str(tmp_path / "named"), UNTUNED_TEXT_WEIGHTS)
    assert (tmp_path / "ranked").read_bytes() == (tmp_path / "named").read_bytes()


def test_lists_without_audio_get_what_they_can(world: Path, tmp_path: Path) -> None:
    """Said once, never an empty file; a component that was asked for by name is refused."""
    plain = [
        NBest(f"u{i}", (Hypothesis("bad cab", {ASR: -1.0}), Hypothesis("a cab", {ASR: -1.2})))
        for i in range(20)
    ]
    save_nbest(plain, tmp_path / "plain")
    bundle, said = str(world / "bundle"), []
    outcome = score(str(tmp_path / "plain"), str(tmp_path / "out"), bundle, say=said.append)
    assert (outcome.n_done, outcome.refused) == (20, ())
    assert said == ["ctc is left out where an utterance lacks a recording"]
    stored = load_nbest(tmp_path / "out")
    assert {name for one in stored for h in one.hypotheses for name in h.scores} == {ASR, TEXT}
    said.clear()
    rescore(str(tmp_path / "out"), str(tmp_path / "ranked"), say=said.append)
    assert said[0] == "ranked without ctc, which the lists do not hold"
    rescorer = relisten.Rescorer.from_pretrained(bundle)
    assert [texts(one) for one in rescorer.rescore(plain)] == [
        texts(one) for one in load_nbest(tmp_path / "ranked")
    ]
    outcome = score(str(tmp_path / "plain"), str(tmp_path / "named"), bundle, (CTC,))
    assert len(outcome.refused) == 20
    assert "names no recording" in outcome.refused[0].reason


def test_named_weights_are_taken_at_their_word(world: Path) -> None:
    rescorer = relisten.Rescorer.from_pretrained(str(world / "bundle"))
    lists = [NBest("u", (Hypothesis("bad"), Hypothesis("cab")))]
    assert texts(rescorer.rescore(lists)[0]) == ["bad", "cab"], "no asr: the order stays"
    by_text = relisten.SecondPassOptions(weights=Weights({TEXT: 1.0}))
    [ranked] = rescorer.rescore(lists, options=by_text)
    assert ranked.hypotheses[0].scores[TEXT] >= ranked.hypotheses[1].scores[TEXT]
    named = relisten.SecondPassOptions(weights=Weights({ASR: 1.0}))
    with pytest.raises(FormatError, match="no score 'asr'"):
        rescorer.rescore(lists, options=named)


def test_wrong_speech_of_a_chunk_of_one(world: Path, tmp_path: Path, monkeypatch) -> None:
    """17 utterances in chunks of 16 ended the run: the last takes the speech of another chunk."""
    monkeypatch.setattr("relisten.tasks.score.CHUNK_SIZE", N_RECORDINGS - 1)
    make_nbest(str(world / "manifest.jsonl"), str(tmp_path / "nbest"), decoding=DECODING)
    bundle, paths = str(world / "bundle"), [str(tmp_path / name) for name in ("right", "wrong")]
    for path, is_wrong in zip(paths, (False, True), strict=True):
        outcome = score(str(tmp_path / "nbest"), path, bundle, (TEXT, CTC), wrong_speech=is_wrong)
        assert outcome.n_done == N_RECORDINGS
    right, wrong = map(load_nbest, paths)
    for one, other in zip(right, wrong, strict=True):
        of_one, of_other = (np.array([h.scores[CTC] for h in u.hypotheses]) for u in (one, other))
        assert not np.allclose(of_one, of_other, atol=1e-3)
        assert [h.scores[TEXT] for h in one.hypotheses] == pytest.approx(
            [h.scores[TEXT] for h in other.hypotheses]
        )
    assert wrong[0].extra[SCORED_BY][CTC]["wrong_speech"] is True


def test_weights_come_from_files_bundles_and_names(world: Path, tmp_path: Path) -> None:
    assert load_weights("relisten-tiny").values == {"asr": 1.0, "text": 0.3, "length": 0.4}
    assert load_weights(world / "bundle").values == WEIGHTS.values
    save_weights(WEIGHTS, str(tmp_path / "w.json"))
    assert load_weights(tmp_path / "w.json").values == WEIGHTS.values
    for reference, what in (("nowhere", "no weights can be read"), (tmp_path, "is no bundle")):
        with pytest.raises(relisten.RelistenError, match=what):
            load_weights(reference)
    (tmp_path / "broken.json").write_text("[" * 100_000)
    with pytest.raises(FormatError, match="relisten tune"):
        load_weights(tmp_path / "broken.json")


def test_former_names_are_read(world: Path, tmp_path: Path) -> None:
    """Lists, weights and bundles that say `letters`, and a bundle's ear.safetensors."""
    import shutil

    old = tmp_path / "old"
    shutil.copytree(world / "bundle", old)
    (old / "ctc_head.safetensors").rename(old / "ear.safetensors")
    record = json.loads((old / "relisten.json").read_text())
    record["weights"]["values"]["letters"] = record["weights"]["values"].pop(CTC)
    (old / "relisten.json").write_text(json.dumps(record))
    assert load_weights(old).values == WEIGHTS.values
    make_nbest(str(world / "manifest.jsonl"), str(tmp_path / "nbest"), decoding=DECODING)
    paths = [str(tmp_path / name) for name in ("new", "formerly")]
    for bundle, path in zip((world / "bundle", old), paths, strict=True):
        score(str(tmp_path / "nbest"), path, str(bundle))
    new, formerly = map(load_nbest, paths)
    assert [one.hypotheses for one in new] == [one.hypotheses for one in formerly]
    text = Path(paths[0]).read_text().replace('"ctc":', '"letters":')
    (tmp_path / "stored").write_text(text)
    assert [one.hypotheses for one in load_nbest(tmp_path / "stored")] == [
        one.hypotheses for one in new
    ]
    known = [replace(one, reference="bad cab") for one in load_nbest(tmp_path / "stored")]
    save_nbest(known, tmp_path / "known")
    result, _ = tune(str(tmp_path / "known"))
    assert CTC in result.weights.values


def test_proposals_come_by_default_where_their_score_counts(world: Path) -> None:
    """And where the CTC head knows the language; `propose=0` does without."""
    rescorer = load_rescorer(str(world / "bundle"))
    listeners = load_listeners(str(world / "bundle"))

    def n_proposed(weights: Weights, language: str = "en", propose: int | None = None) -> int:
        options = relisten.SecondPassOptions(weights=weights, propose=propose)
        its = replace(listeners, language=language)
        second_pass = SecondPass.of(rescorer, its, DECODING, options)
        return second_pass.proposer.n if second_pass.proposer else 0

    counted = Weights({ASR: 1.0, CTC: 0.3})
    assert n_proposed(counted) == 10
    assert n_proposed(Weights({ASR: 1.0, TEXT: 0.3})) == 0
    assert n_proposed(counted, language="de") == 0
    assert n_proposed(counted, propose=0) == 0
    assert n_proposed(counted, language="de", propose=3) == 3
