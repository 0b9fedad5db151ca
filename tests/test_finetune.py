"""From a bundle and N-best lists to a bundle that makes fewer errors on them, on tiny models."""

from __future__ import annotations

import json
import shutil
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from relisten.core.error_rates import word_errors
from relisten.core.leakage import TrainedOn
from relisten.core.types import FormatError, ModelError, NBest, UsageError
from relisten.io.bundle import add_trained_on, read_bundle, read_trained_on, write_bundle
from relisten.io.nbest import load_nbest, save_nbest
from relisten.lm.scorer import Scorer
from relisten.lm.sequences import chunk_features
from relisten.lm.training import projector_guesses
from relisten.speech.ctc.head import CTCHead
from relisten.tasks.finetune import FinetuneConfig, finetune
from relisten.tasks.frontend import bundle_frontend
from relisten.tasks.loading import load_rescorer
from relisten.tasks.pretrain import PretrainConfig, pretrain
from relisten.tasks.ranking import rank
from relisten.tasks.score import score
from relisten.tasks.training.codebook import CodebookConfig
from relisten.tasks.training.config import STATE
from relisten.tasks.training.cross_fit import CrossFitted, fold_of
from relisten.tasks.training.ctc import CTCConfig
from relisten.tasks.training.lists import ListReader, draw_lists
from relisten.tasks.training.lm import LMConfig
from relisten.tasks.training.projector import ProjectorConfig
from relisten.tasks.training.schedule import Schedule
from relisten.tasks.training.trainable import Trainable, lora_tensors, open_for_training
from tiny_speech import noise
from tiny_world import fill_cache, small_ctc_batches

TEXTS = ("ab cd", "cd ab ab", "ab", "cd cd")
"""References; the first pass prefers hypotheses with "ac" for "ab"."""
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Tiny models under the known names, a speech-text bundle, and lists with their recordings."""
    folder = tmp_path_factory.mktemp("world")
    manifest, lists = [], []
    for i in range(8):
        samples = (noise(1.5 + 0.2 * i, i) * 20_000).astype("<i2")
        with wave.open(str(folder / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(samples.tobytes())
        said = TEXTS[i % 4]
        record = {"id": f"u{i}", "audio": f"{i}.wav", "reference": said, "speaker": f"s{i % 4}"}
        manifest.append(json.dumps(record))
        texts = (said.replace("ab", "ac"), said, f"{said} ac", said.upper())
        hypotheses = [
            {
                "text": text,
                "scores": {"asr": -1.0 - 0.5 * n},
                "word_ends_s": [0.4 * (k + 1) for k in range(len(text.split()))],
            }
            for n, text in enumerate(texts)
        ]
        lists.append(json.dumps({**record, "hypotheses": hypotheses}))
    (folder / "train.jsonl").write_text("\n".join(manifest) + "\n")
    (folder / "nbest.jsonl").write_text("\n".join(lists) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        fill_cache(patch, folder / "models")
        small_ctc_batches(patch)
        start = PretrainConfig(
            str(folder / "start"),
            manifests={str(folder / "train.jsonl"): 1.0},
            cache=str(folder / "cache"),
            ctc=CTCConfig(steps=2),
            projector=ProjectorConfig(epochs=1),
            codebook=CodebookConfig(units=8),
            lm=LMConfig(tasks={"chunked": 0.5, "text": 0.5}, lora_rank=2, batch_tokens=64),
            schedule=Schedule(2, 5e-4, 50, 100),
            folds=2,
            dtype="float32",
        )
        pretrain(start, quiet)
        yield folder


def quiet(line: str) -> None:
    pass


def config(
    world: Path, name: str, steps: int = 6, eval_every: int = 3, **options
) -> FinetuneConfig:
    lists = str(world / "nbest.jsonl")
    schedule = {key: options.pop(key) for key in ("accumulate", "patience") if key in options}
    rate = options.pop("learning_rate", 3e-3)
    defaults = {
        "model": str(world / "start"),
        "dev_nbest": (lists,),
        "cache": str(world / "cache"),
        "batch": 3,
        "schedule": Schedule(steps, rate, 1, eval_every, **schedule),
        "dtype": "float32",
    }
    return FinetuneConfig(str(world / name), {lists: 1.0}, **{**defaults, **options})


def wer(world: Path, name: str, components: tuple[str, ...]) -> float:
    """Of the lists rescored by the bundle with its own weights, %."""
    output = world / f"{name}-scored.jsonl"
    score(str(world / "nbest.jsonl"), str(output), str(world / name), components, dtype="float32")
    weights = read_bundle(world / name).weights
    counts = [
        word_errors(u.reference, rank(u, weights).hypotheses[0].text.lower())
        for u in load_nbest(output)
    ]
    return 100 * sum(c.errors for c in counts) / sum(c.n_reference for c in counts)


@pytest.mark.parametrize("components", [("text",), (), ("text_given_speech",)])
def test_fewer_errors_are_expected_and_made(world: Path, components: tuple[str, ...]) -> None:
    """By the development metrics, and by the scores of the bundle, ranked by its own weights."""
    name = "-".join(components) or "all"
    said: list[str] = []
    settings = config(world, name, components=components, steps=16, eval_every=16)
    dev_metrics = finetune(settings, said.append)
    (before,) = [line for line in said if line.startswith("before: ")]
    assert dev_metrics["expected WER"] < float(before.split("expected WER ")[1].split()[0]) - 5
    bundle = read_bundle(world / name)
    asked = components or read_bundle(world / "start").components
    assert set(bundle.weights.values) == {"asr", "length", "ctc", *asked}
    assert bundle.weights.values["asr"] == 1.0
    learnt = read_trained_on(world / name)
    assert learnt is not None
    seen = {learnt.has_seen(one) for one in load_nbest(world / "nbest.jsonl")}
    assert seen == {"utterance"}
    assert wer(world, name, (*asked, "ctc")) == pytest.approx(dev_metrics["WER"])


def test_what_the_bundle_was_trained_and_tuned_on_is_kept(world: Path) -> None:
    """It has seen what the bundle has that it starts from; with patience the development lists
    choose, too."""
    start = world / "tuned"
    shutil.copytree(world / "start", start, ignore=shutil.ignore_patterns(STATE))
    bundle = read_bundle(start)
    tuned_on = frozenset({"ab" * 8})
    write_bundle(start, replace(bundle, weights=replace(bundle.weights, tuned_on=tuned_on)))
    add_trained_on(start, TrainedOn.of([NBest("before", reference="a b")]))
    before = read_trained_on(start)
    assert before is not None
    lists = [replace(u, id=f"new-{u.id}") for u in load_nbest(world / "nbest.jsonl")]
    save_nbest(lists[:4], world / "half.jsonl")
    save_nbest(lists[4:], world / "other-half.jsonl")
    for patience, n_seen in ((0, 4), (1, 8)):
        name = f"tuned-{patience}"
        settings = config(
            world, name, steps=1, patience=patience, model=str(start), components=("text",)
        )
        half, other = str(world / "half.jsonl"), str(world / "other-half.jsonl")
        finetune(replace(settings, nbest={half: 1.0}, dev_nbest=(other,)), quiet)
        assert read_bundle(world / name).weights.tuned_on == tuned_on
        learnt = read_trained_on(world / name)
        assert learnt is not None
        assert learnt.has_seen(NBest("before", reference="a b")) == "utterance"
        assert len(learnt.utterances) == len(before.utterances) + n_seen


def test_a_text_bundle_without_an_adapter(world: Path) -> None:
    """And lists without recordings."""
    lists = [replace(u, audio=None) for u in load_nbest(world / "nbest.jsonl")]
    save_nbest(lists, world / "silent.jsonl")
    silent = {str(world / "silent.jsonl"): 1.0}
    settings = config(world, "text-only", model="relisten-tiny", lora_rank=2)
    finetune(replace(settings, nbest=silent), quiet)
    assert not read_bundle(world / "text-only").has_speech
    assert (world / "text-only" / "adapter_model.safetensors").exists()
    assert load_rescorer(str(world / "text-only")).scorer.components == ("text",)


def test_all_of_the_lm(world: Path) -> None:
    settings = config(world, "whole", model="relisten-tiny", lora_rank=0, learning_rate=1e-3)
    dev_metrics = finetune(settings, quiet)
    assert read_bundle(world / "whole").base == "lm"
    assert wer(world, "whole", ("text",)) == pytest.approx(dev_metrics["WER"])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_stopped_run_goes_on_to_the_same_bits(world: Path, accumulate: int) -> None:
    options = {
        "accumulate": accumulate,
        "folds_of": str(world / "start" / STATE),
        "ce_weight": 0.1,
        "dev_nbest": (),
        "steps": 4,
        "eval_every": 2,
        "batch": 2,
    }

    class Stop(Exception):
        pass

    def stop(line: str) -> None:
        if line.startswith("step 4/4"):
            raise Stop

    finetune(config(world, f"whole-{accumulate}", **options), quiet)
    with pytest.raises(Stop):
        finetune(config(world, f"parts-{accumulate}", **options), stop)
    finetune(config(world, f"parts-{accumulate}", **options), quiet)
    for name in ("adapter_model.safetensors", "extension.safetensors", "relisten.json"):
        a, b = ((world / f"{run}-{accumulate}" / name).read_bytes() for run in ("whole", "parts"))
        assert a == b, name
    other = config(world, f"parts-{accumulate}", **{**options, "ce_weight": 0.2})
    with pytest.raises(UsageError, match="other ce_weight; name another output"):
        finetune(other, quiet)


def reader(world: Path, start: Trainable, **options) -> ListReader:
    scorer = Scorer(start.model, start.texts, "chunked", components=("text", "text_given_speech"))
    frontend = bundle_frontend(start.folder, start.config)
    settings = {
        "stored": ("asr", "length"),
        "max_hypotheses": 10,
        "first_pass": "whisper-tiny.en",
        **options,
    }
    return ListReader(
        scorer,
        scorer.components,
        frontend=frontend,
        cache=world / "cache",
        **settings,
    )


def test_what_is_opened_was_saved_and_what_is_saved_scores_alike(world: Path) -> None:
    """An adapter goes on where it was; a changed one scores from its folder as it did in memory."""
    start = open_for_training(str(world / "start"), torch.float32, 0, CPU)
    kept = load_file(world / "start" / "adapter_model.safetensors")
    for name, tensor in lora_tensors(start.model.causal).items():
        assert torch.equal(tensor, kept[name])
    torch.manual_seed(1)
    for name, parameter in start.model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn_like(parameter) * 0.3
    lists, _ = reader(world, start).read(str(world / "nbest.jsonl"), True, False)
    in_memory = Scorer(start.model, start.texts, "chunked")
    output = world / "changed"
    output.mkdir()
    start.save(output, start.config.weights, TrainedOn())
    before, after = (load_rescorer(str(f), dtype="float32") for f in (world / "start", output))
    asked = [one.hypotheses for one in lists]
    for component in ("text", "text_given_speech"):
        expected = in_memory.score(asked, component)
        for a, b in zip(expected, after.scorer.score(asked, component), strict=True):
            np.testing.assert_allclose(a, b, atol=0.05)  # the adapter is kept in half precision
        assert abs(before.scorer.score(asked, component)[0] - expected[0]).max() > 0.1


def test_lists_are_merged_and_counted_by_hand(world: Path) -> None:
    """Of u1 ("cd ab ab") "CD AB AB" is the second again: three are left, with 2, 0 and 1 errors,
    log(e^-1.5 + e^-2.5) the score of the merged one; two at most: with 2 and 0."""
    start = open_for_training(str(world / "start"), torch.float32, 0, CPU)
    lists, _ = reader(world, start).read(str(world / "nbest.jsonl"), False, False)
    one = lists[1]
    assert one.hypotheses.texts == ("cd ac ac", "cd ab ab", "cd ab ab ac")
    assert one.errors.tolist() == [2, 0, 1]
    assert one.n_reference == 3
    np.testing.assert_allclose(one.stored["asr"], [-1, np.logaddexp(-1.5, -2.5), -2], rtol=1e-6)
    assert one.stored["length"].tolist() == [3, 3, 4]
    few, _ = reader(world, start, max_hypotheses=2).read(str(world / "nbest.jsonl"), False, False)
    assert few[1].errors.tolist() == [2, 0]


def test_a_reference_that_is_added_scores_like_the_last(world: Path) -> None:
    """Its word ends are the first pass's, aligned; a list that holds it gets no second one."""
    start = open_for_training(str(world / "start"), torch.float32, 0, CPU)
    few = reader(world, start, max_hypotheses=1)
    lists, _ = few.read(str(world / "nbest.jsonl"), False, True)
    assert lists[1].hypotheses.texts == ("cd ac ac", "cd ab ab")
    assert lists[1].stored["asr"].tolist() == [-1, -1]
    assert len(lists[1].hypotheses.word_ends_s[1]) == 3
    assert lists[3].hypotheses.texts == ("cd cd",), "the reference, first on its list"


def test_what_cannot_be_used_is_counted(world: Path) -> None:
    lists = load_nbest(world / "nbest.jsonl")
    bare = tuple(replace(h, word_ends_s=None) for h in lists[3].hypotheses)
    lists[0] = replace(lists[0], reference=None)
    lists[1] = replace(lists[1], hypotheses=())
    lists[2] = replace(lists[2], audio="nowhere.wav")
    lists[3] = replace(lists[3], hypotheses=bare)
    save_nbest(lists, world / "broken.jsonl")
    said: list[str] = []
    broken = {str(world / "broken.jsonl"): 1.0}
    # of the four that are left, "cd cd" has hypotheses that differ in errors like the others
    finetune(replace(config(world, "broken", steps=1), nbest=broken), said.append)
    assert any(
        line.endswith(
            "4 lists (left out, no hypotheses: 1, no readable recording: 1, no reference: 1, "
            "no word ends: 1)"
        )
        for line in said
    ), said


def test_cross_fitted_is_of_the_fold_that_was_not_trained_on_the_speaker(world: Path) -> None:
    """What pre-training kept for its examples, on the same chunks; CTC log-probabilities and the
    score of them too."""
    start = open_for_training(str(world / "start"), torch.float32, 0, CPU)
    cross_fitted = CrossFitted(world / "start" / STATE, start.model)
    names = ("asr", "ctc", "length")
    its_reader = reader(world, start, stored=names)
    lists, _ = its_reader.read(str(world / "nbest.jsonl"), True, False, cross_fitted)
    for one in lists:
        fold = fold_of(one.speaker, 2)
        path = world / "start" / STATE / f"projector-fold{fold}.safetensors"
        projector = start.model.extension.projector
        own = {name: tensor.clone() for name, tensor in projector.state_dict().items()}
        projector.load_state_dict(load_file(path))
        (sequence,) = Scorer(start.model, start.texts, "chunked").sequences(
            one.reference, "text_given_speech"
        )
        table = start.model.text_embedding.weight.detach()
        chunks = chunk_features(one.speech, sequence.spans[sequence.spans[:, 0] >= 0])
        expected = projector_guesses(projector, table, chunks)
        np.testing.assert_allclose(cross_fitted.guesses(chunks, one.speaker), expected, rtol=1e-5)
        projector.load_state_dict(own)
        ctc_head = CTCHead.load(world / "start" / STATE / f"ctc-fold{fold}.safetensors")
        ctc_log_probs = ctc_head.log_probs(one.speech.frames)
        np.testing.assert_allclose(one.speech.ctc_log_probs, ctc_log_probs, atol=1e-2)
        scores = ctc_head.score(one.speech.ctc_log_probs, one.hypotheses.texts)
        np.testing.assert_allclose(one.stored["ctc"], scores, rtol=1e-5)
    with pytest.raises(UsageError, match="no projectors of folds"):
        CrossFitted(world, start.model)


def test_a_bundle_of_units_has_cross_fitted_ctc_heads_alone(world: Path) -> None:
    """It has no projector, so that none is asked for."""
    start = open_for_training(str(world / "start"), torch.float32, 0, CPU)
    start.model.extension.projector = None
    cross_fitted = CrossFitted(world / "start" / STATE, start.model)
    fold = CTCHead.load(world / "start" / STATE / f"ctc-fold{fold_of('s1', 2)}.safetensors")
    assert torch.equal(cross_fitted.ctc_head("s1").out.weight, fold.out.weight)
    with pytest.raises(UsageError, match="no CTC heads of folds"):
        CrossFitted(world, start.model)


def test_lists_are_drawn_by_weight_alike_in_length(world: Path) -> None:
    start = open_for_training(str(world / "start"), torch.float32, 0, CPU)
    lists, _ = reader(world, start).read(str(world / "nbest.jsonl"), False, False)
    drawn = [draw_lists([(lists[:4], 1.0), (lists[4:], 0.0)], 3, 0, step, 0) for step in range(9)]
    assert {one.id for some in drawn for one in some} <= {"u0", "u1", "u2", "u3"}
    assert all(len(some) == 3 for some in drawn)
    widths = [max(o.n_words for o in some) - min(o.n_words for o in some) for some in drawn]
    assert np.mean(widths) < 3, "of 3 to 10 words"
    again = draw_lists([(lists[:4], 1.0), (lists[4:], 0.0)], 3, 0, 5, 0)
    assert [one.id for one in again] == [one.id for one in drawn[5]]


def test_scores_that_lists_bring_are_weighed_too(world: Path) -> None:
    """A component of some other model, if the bundle counts it; without it, one sentence."""
    bundle = read_bundle(world / "start")
    start = world / "with-taste"
    shutil.copytree(world / "start", start, ignore=shutil.ignore_patterns(STATE))
    values = {**bundle.weights.values, "taste": 0.5}
    write_bundle(start, replace(bundle, weights=replace(bundle.weights, values=values)))
    settings = config(world, "tasted", model=str(start), components=("text",), dev_nbest=())
    with pytest.raises(FormatError, match="no score 'taste'"):
        finetune(settings, quiet)
    lists = [
        replace(
            u,
            hypotheses=tuple(
                replace(h, scores={**h.scores, "taste": -float(h.text != u.reference)})
                for h in u.hypotheses
            ),
        )
        for u in load_nbest(world / "nbest.jsonl")
    ]
    save_nbest(lists, world / "tasty.jsonl")
    finetune(
        replace(settings, nbest={str(world / "tasty.jsonl"): 1.0}, output=str(world / "t")), print
    )
    assert read_bundle(world / "t").weights.values["taste"] > 0.5, "it knows the right ones"


def test_contradictions_are_named(world: Path) -> None:
    with pytest.raises(UsageError, match="at least one file"):
        FinetuneConfig("out", {})
    with pytest.raises(UsageError, match="give some of text"):
        FinetuneConfig("out", {"n": 1.0}, components=("sing",))
    with pytest.raises(UsageError, match="patience needs dev_nbest"):
        FinetuneConfig("out", {"n": 1.0}, schedule=Schedule(1, 0.1, 0, 1, patience=1))
    with pytest.raises(UsageError, match="batch is 0"):
        FinetuneConfig("out", {"n": 1.0}, batch=0)
    with pytest.raises(ModelError, match="was not trained for speech_given_text"):
        finetune(config(world, "untaught", components=("speech_given_text",)), quiet)
    with pytest.raises(UsageError, match="name another output"):
        finetune(config(world, "start"), quiet)
    with pytest.raises(ModelError, match="is no bundle"):
        finetune(config(world, "plain", model="smollm2-135m"), quiet)
