"""The doctor: one healthy set-up and the ways to break it, each found by its own check."""

from __future__ import annotations

import heapq
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from broken_lists import BREAKS, broken
from relisten.apps.cli import main
from relisten.core.text import normaliser, spoken
from relisten.core.types import Hypothesis, NBest
from relisten.io.nbest import load_nbest, save_nbest
from relisten.tasks.doctor.checks import Lists
from relisten.tasks.doctor.doctor import DoctorReport, doctor
from relisten.tasks.doctor.score_checks import check_others

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "data" / "nbest.jsonl"
N_CHOICES = 4


def best_paths(logs: np.ndarray, n: int) -> list[tuple[float, tuple[int, ...]]]:
    """The n most probable choices of one word per place: (log-probability, choices), best first.

    logs: [W, N_CHOICES], log-probabilities of each place, best first.
    """
    beam: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for row in logs:
        grown = [(p + q, (*path, k)) for p, path in beam for k, q in enumerate(row)]
        beam = heapq.nlargest(n, grown)
    return beam


def recordings_encoded(name: str, rng: np.random.Generator, hint: float) -> NBest:
    """An utterance of 2 to 17 words, each one of N_CHOICES, spoken with the probability that
    the first pass gives it: its `asr` is calibrated. `text`: another score, `hint` nats for each
    word that was spoken, plus noise."""
    n_words = int(rng.integers(2, 18))
    p = -np.sort(-rng.dirichlet([2.5, 0.25, 0.15, 0.1], n_words), axis=1)
    p = (p + 1e-3) / (p + 1e-3).sum(axis=1, keepdims=True)
    spoken_choices = [int(rng.choice(N_CHOICES, p=row)) for row in p]
    words = [[f"{name}q{chr(97 + i)}{c}" for c in "abcd"] for i in range(n_words)]
    opinion = rng.normal(-3, 1, (n_words, N_CHOICES))
    opinion[np.arange(n_words), spoken_choices] += hint
    hypotheses = tuple(
        Hypothesis(
            " ".join(words[i][k] for i, k in enumerate(path)),
            {"asr": score, "text": min(-0.1, sum(opinion[i, k] for i, k in enumerate(path)))},
        )
        for score, path in best_paths(np.log(p), 10)
    )
    reference = " ".join(words[i][k] for i, k in enumerate(spoken_choices))
    return NBest(name, hypotheses, reference=reference)


def names(n: int) -> list[str]:
    """Without digits, which a normaliser would join."""
    return ["u" + "".join(chr(97 + int(digit)) for digit in str(i)) for i in range(n)]


@pytest.fixture(scope="module")
def healthy() -> list[NBest]:
    rng = np.random.default_rng(5)
    return [recordings_encoded(name, rng, hint=2.0) for name in names(100)]


def examined(utterances: list[NBest], folder: Path) -> DoctorReport:
    save_nbest(utterances, folder / "lists.jsonl")
    return doctor(str(folder / "lists.jsonl"))


def statuses(report: DoctorReport) -> dict[str, str]:
    return {check.name: check.status for check in report.checks}


def finding(report: DoctorReport, status: str) -> str:
    """The one check of this status: its name and what it means."""
    (check,) = (check for check in report.checks if check.status == status)
    return f"{check.name}: {check.meaning}"


def test_a_healthy_set_up(healthy: list[NBest], tmp_path: Path) -> None:
    """Every check is ok; `text`, which knows better, brings the gain, and `length` nothing."""
    report = examined(healthy, tmp_path)
    assert set(statuses(report).values()) == {"ok"}
    assert report.verdict.startswith("Healthy")
    assert report.next_step == f"relisten tune {tmp_path}/lists.jsonl -o weights.json"
    gain = report.gain
    assert gain is not None
    assert gain.is_certain
    assert gain.oracle_wer < gain.tuned_wer < gain.first_pass_wer
    assert gain.captured == pytest.approx(
        (gain.first_pass_wer - gain.tuned_wer) / (gain.first_pass_wer - gain.oracle_wer)
    )
    brought = {part.component: part.gain for part in gain.parts}
    assert brought["text"].absolute_low > 0.01
    assert abs(brought["length"].absolute) < 0.01


DIAGNOSES = {
    "wrong_sign": "sign and order: the sign is wrong",
    "averages": "scale of scores: these are averages",
    "log10": "scale of scores: no natural logs; possible as log10",
    "shuffled": "sign and order: the scores are not these hypotheses' own",
    "copies": "copies: lists are padded",
}


@pytest.mark.parametrize("name", BREAKS)
def test_each_break_is_found(name: str, healthy: list[NBest], tmp_path: Path) -> None:
    """By its own check, the only one that is broken; the verdict says so, and how to correct it."""
    report = examined(broken(healthy, name), tmp_path)
    assert finding(report, "broken").startswith(DIAGNOSES[name])
    assert report.is_broken
    assert report.verdict.startswith("It is a bug")
    assert report.next_step
    assert report.gain is None


@pytest.mark.parametrize("name", BREAKS)
def test_breaks_are_found_without_references(
    name: str, healthy: list[NBest], tmp_path: Path
) -> None:
    """None of the five needs them, though of shuffled scores it is then not sure whether the
    scores are wrong or the order."""
    report = examined([replace(u, reference=None) for u in broken(healthy, name)], tmp_path)
    found = finding(report, "broken")
    assert found.startswith(DIAGNOSES[name].replace("scores are", "scores, or the order, are"))
    assert statuses(report)["references"] == "cannot tell"


def test_the_remedy_for_log10_works(healthy: list[NBest], tmp_path: Path) -> None:
    """The suggested `jq` command multiplies by 2.302585."""

    def times(u: NBest, factor: float) -> NBest:
        scores = [{**h.scores, "asr": h.scores["asr"] * factor} for h in u.hypotheses]
        pairs = zip(u.hypotheses, scores, strict=True)
        return replace(u, hypotheses=tuple(replace(h, scores=s) for h, s in pairs))

    report = examined(broken(healthy, "log10"), tmp_path)
    assert "asr *= 2.302585" in report.next_step
    corrected = examined([times(u, 2.302585) for u in broken(healthy, "log10")], tmp_path)
    assert not corrected.is_broken


def test_lists_that_stand_worst_first(healthy: list[NBest], tmp_path: Path) -> None:
    upside_down = [replace(u, hypotheses=u.hypotheses[::-1]) for u in healthy]
    found = finding(examined(upside_down, tmp_path), "broken")
    assert found.startswith("sign and order: the scores are right, but the lists are worst first")


def test_costs_sorted_as_if_they_were_scores(healthy: list[NBest], tmp_path: Path) -> None:
    """The order agrees with the score, so only errors tell."""
    costs = [replace(u, hypotheses=u.hypotheses[::-1]) for u in broken(healthy, "wrong_sign")]
    found = finding(examined(costs, tmp_path), "broken")
    assert found.startswith("sign and order: the sign is wrong")


def test_missing_and_equal_scores(healthy: list[NBest], tmp_path: Path) -> None:
    torn = [
        replace(u, hypotheses=(*u.hypotheses[:-1], replace(u.hypotheses[-1], scores={})))
        for u in healthy
    ]
    report = examined(torn, tmp_path)
    assert statuses(report)["scores present"] == "broken"
    assert report.checks[4].finding.startswith("100 of ")
    flat = [
        replace(u, hypotheses=tuple(replace(h, scores={"asr": -1.0}) for h in u.hypotheses))
        for u in healthy
    ]
    assert statuses(examined(flat, tmp_path))["scores differ"] == "broken"


def test_scores_of_models_are_looked_at_too(healthy: list[NBest], tmp_path: Path) -> None:
    """Averages of `text` do not grow with length; a probability above 1 cannot be."""

    def with_text(change) -> list[NBest]:
        return [
            replace(
                u,
                hypotheses=tuple(
                    replace(h, scores={**h.scores, "text": change(h)}) for h in u.hypotheses
                ),
            )
            for u in healthy
        ]

    averages = with_text(lambda h: h.scores["text"] / len(h.text.split()))
    assert finding(examined(averages, tmp_path), "broken") == "text: these are averages"
    costs = with_text(lambda h: -h.scores["text"])
    assert finding(examined(costs, tmp_path), "broken") == "text: log-probabilities never are"


def test_few_speakers_are_no_evidence_of_averages() -> None:
    """20 lists of five speakers whose `text` happens not to grow with length: a correct score was
    called broken. With ten times as many speakers, the same is a finding."""
    rng = np.random.default_rng(7)

    def checks(n_speakers: int) -> list[str]:
        lists = []
        for n, name in enumerate(names(4 * n_speakers)):
            one = recordings_encoded(name, rng, hint=0.0)
            hypotheses = tuple(
                replace(h, scores={"text": -20 + float(rng.normal())}) for h in one.hypotheses
            )
            extra = {"speaker": f"s{n % n_speakers}"}
            lists.append(replace(one, hypotheses=hypotheses, extra=extra))
        return [check.meaning for check in check_others(Lists.of(lists, normaliser("english")))]

    assert checks(5) == []
    assert checks(50) == ["these are averages"]


@pytest.mark.parametrize("component", ["asr", "text"])
def test_placeholders_are_found(component: str, healthy: list[NBest], tmp_path: Path) -> None:
    """One score of -1e308 was an IndexError."""
    one = healthy[3]
    last = replace(one.hypotheses[-1], scores={**one.hypotheses[-1].scores, component: -1e308})
    torn = [*healthy[:3], replace(one, hypotheses=(*one.hypotheses[:-1], last)), *healthy[4:]]
    report = examined(torn, tmp_path)
    checks = {check.name: check for check in report.checks}
    assert checks["scores present"].status == "broken"
    assert f"`{component}` 1 times is no log-probability" in checks["scores present"].finding
    assert report.is_broken


def test_a_list_of_one_voted_text_is_an_empty_list(healthy: list[NBest], tmp_path: Path) -> None:
    voted = NBest("v", (Hypothesis("x", extra={"made_by": "rover"}),), reference="x")
    assert examined([voted, *healthy[:30]], tmp_path).n_utterances == 31
    assert examined([voted], tmp_path).gain is None


def test_a_path_in_a_suggested_command_is_quoted(healthy: list[NBest], tmp_path: Path) -> None:
    folder = tmp_path / "my lists"
    folder.mkdir()
    report = examined(broken(healthy, "wrong_sign"), folder)
    assert f"'{folder}/lists.jsonl' > CORRECTED" in report.next_step


def test_the_terminal_shows_names_as_they_are(healthy: list[NBest], tmp_path: Path) -> None:
    """A score called `[/x]` was a rich.MarkupError, and escape sequences were obeyed."""
    nasty = "[/x]\x1b[31m"
    named = [
        replace(u, hypotheses=tuple(replace(h, scores={nasty: -1.0}) for h in u.hypotheses))
        for u in healthy[:20]
    ]
    save_nbest(named, tmp_path / "lists.jsonl")
    done = run(tmp_path / "lists.jsonl")
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert "[/x]\\x1b" in done.stdout
    assert "\x1b[31m" not in done.stdout


def test_a_useless_score_keeps_the_first_pass(tmp_path: Path) -> None:
    """`text` here is independent of what was spoken."""
    rng = np.random.default_rng(6)
    report = examined([recordings_encoded(name, rng, hint=0.0) for name in names(60)], tmp_path)
    assert not report.is_broken
    assert "keep the first pass" in report.verdict


def test_before_scoring_the_next_step_is_to_score(healthy: list[NBest], tmp_path: Path) -> None:
    bare = [
        replace(
            u,
            hypotheses=tuple(replace(h, scores={"asr": h.scores["asr"]}) for h in u.hypotheses),
        )
        for u in healthy
    ]
    report = examined(bare, tmp_path)
    assert report.next_step.startswith("relisten score ")


def test_one_text_a_list_is_no_choice(healthy: list[NBest], tmp_path: Path) -> None:
    report = examined([replace(u, hypotheses=u.hypotheses[:1]) for u in healthy], tmp_path)
    assert finding(report, "look here") == "choice: too little to choose from"
    assert not report.is_broken


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["doctor", *map(str, arguments), "--quiet"])


def test_exit_codes(healthy: list[NBest], tmp_path: Path) -> None:
    """0 healthy, 1 broken, 2 unreadable; NaN is unreadable to every command."""
    good, bad, torn = (tmp_path / name for name in ("good.jsonl", "bad.jsonl", "torn.jsonl"))
    save_nbest(healthy[:40], good)
    save_nbest(broken(healthy[:40], "wrong_sign"), bad)
    done = run(good, "--json", tmp_path / "report.json")
    assert done.exit_code == 0, done.output
    assert "sign and order" in done.stdout
    record = json.loads((tmp_path / "report.json").read_text())
    assert record["is_broken"] is False
    assert record["gain"]["captured"] > 0
    assert [check["status"] for check in record["checks"]] == ["ok"] * 8
    done = run(bad, "--json", "-")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["checks"][7]["status"] == "cannot tell"
    torn.write_text('{"id": "a", "hypotheses": [{"text": "x", "scores": {"asr": NaN}}]}')
    done = run(torn)
    assert done.exit_code == 2
    assert "'a': hypothesis 1: score 'asr' is nan" in done.stderr
    torn.write_text('{"id": "a"}')
    assert run(torn).exit_code == 2


def word_lm(folder: Path, texts: list[str]) -> Path:
    """A tiny causal LM over words trained to memorise `texts`, with its tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    ids_of = word_ids(texts)
    torch.manual_seed(0)
    lm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(ids_of) + 1,
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=1,
            num_attention_heads=4,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    rows = [[0, *(ids_of[word] for word in text.split()), 0] for text in texts]
    ids = torch.full((len(rows), max(map(len, rows))), -100)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
    optimiser = torch.optim.AdamW(lm.parameters(), 1e-2)
    for _ in range(60):
        lm(input_ids=ids.clamp(min=0), labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    lm.save_pretrained(folder)
    save_tokenizer(folder, ids_of)
    return folder


def word_ids(texts: list[str]) -> dict[str, int]:
    words = sorted({word for text in texts for word in text.split()})
    return {word: 1 + i for i, word in enumerate(words)}


def save_tokenizer(folder: Path, ids_of: dict[str, int]) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"<|endoftext|>": 0, **ids_of}, "<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(
        folder
    )


def test_a_wrong_tokenizer_is_found(tmp_path: Path) -> None:
    """The same LM, the same words, other ids: real text is no more probable than shuffled."""
    texts = [spoken(u.reference or "") for u in load_nbest(BENCHMARK)]
    folder = word_lm(tmp_path / "lm", texts)
    right = doctor(str(BENCHMARK), model=str(folder))
    assert (statuses(right)["tokenizer"], statuses(right)["reading"]) == ("ok", "ok")
    ids_of = word_ids(texts)
    save_tokenizer(folder, {word: 1 + (i + 38) % len(ids_of) for word, i in ids_of.items()})
    wrong = doctor(str(BENCHMARK), model=str(folder))
    assert finding(wrong, "broken").startswith("reading: word order makes no difference to this")


def test_a_tokenizer_too_large_is_found(tmp_path: Path) -> None:
    """Tokens without embeddings: the model does not load, and that is the finding."""
    from transformers import AutoTokenizer

    folder = word_lm(tmp_path, ["one two three four", "four three two one"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"more{i}" for i in range(50)])
    tokenizer.save_pretrained(folder)
    found = finding(doctor(str(BENCHMARK), model=str(folder)), "broken")
    assert found.startswith("model: the tokenizer has 55 tokens but the LM embeds only 5")


def test_a_model_that_is_not_there_is_found(tmp_path: Path) -> None:
    (tmp_path / "relisten.json").write_text("{}")
    found = finding(doctor(str(BENCHMARK), model=str(tmp_path)), "broken")
    assert found.startswith(f"model: {tmp_path}")


def test_loops_are_told(healthy: list[NBest], tmp_path: Path) -> None:
    """One list holds "the cat" forty times, and the recogniser's own choice of another has fifty
    words in two seconds: two lists to look at, named, and nothing broken."""
    loop = Hypothesis("the cat " * 40, {"asr": -80.0, "text": -80.0})
    first = replace(healthy[0], hypotheses=(*healthy[0].hypotheses, loop))
    fast = " ".join(f"{letter}{n}x" for n in range(5) for letter in "abcdefghij")
    chosen = Hypothesis(fast, {"asr": -0.1, "text": -80.0})
    second = replace(healthy[1], hypotheses=(chosen, *healthy[1].hypotheses), duration_s=2.0)
    report = examined([first, second, *healthy[2:20]], tmp_path)
    (lengths,) = (check for check in report.checks if check.name == "lengths")
    assert lengths.status == "look here"
    assert lengths.finding.startswith("1 of 202 hypotheses are repetition loops, 1 have more")
    assert f"first in '{first.id}', '{second.id}'; in 1 lists" in lengths.meaning
    assert not report.is_broken


def test_unreadable_lists_are_listed_and_the_others_checked(
    healthy: list[NBest], tmp_path: Path
) -> None:
    """A line of another program's list without its score: the rest is examined, exit code 1."""
    lines = "u1\tthe cat\t-1.5\nu1\ta cat\t-2.5\nu2\tthe dog\tnan\nu3\tthe cow\t-1.0\n"
    (tmp_path / "lists.tsv").write_text(lines)
    report = doctor(str(tmp_path / "lists.tsv"))
    assert report.n_utterances == 2
    assert [refusal.id for refusal in report.refused] == ["u2"]
    result = CliRunner().invoke(main, ["doctor", str(tmp_path / "lists.tsv"), "--quiet"])
    assert result.exit_code == 1
    assert "1 refused:" in result.output


def test_one_list_gives_finite_findings(healthy: list[NBest], tmp_path: Path) -> None:
    """It has no interval: what was "[-inf%, inf%]" and "nan ± nan" is left out."""
    report = examined(healthy[:1], tmp_path)
    sentences = " ".join(check.finding for check in report.checks)
    assert "inf%" not in sentences
    assert "nan" not in sentences
    json.loads(json.dumps(report.to_json()), parse_constant=pytest.fail)
