"""docs/results.md from stored scores: every row cross-validated over speakers, with its interval.

    python benchmarks/results.py SCORED [-o docs/results.md]

SCORED holds SET.FIRST_PASS.MODEL.jsonl, written by `relisten nbest` and `relisten score`; the rows
below name the MODELs. A row whose file or score is missing is left out. `relisten pretrain` writes
the nats per reference word to state/dev-metrics.json in its bundle; where SCORED holds that file as
MODEL.dev-metrics.json, a table of it follows. A first pass with +10 has ten samples besides its
beam, one with +ctc ten texts that the CTC head proposed (`nbest --propose 10`). Scoring is not done
here; this takes some minutes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import relisten
from relisten.core.bootstrap import paired_bootstrap
from relisten.core.tune import TuningResult, fit_weights
from relisten.core.types import NBest
from relisten.tasks.evaluation.evaluate import evaluate

SETS = {
    "speechocean": "Read sentences, Mandarin speakers, half of them children (speechocean762)",
    "steelsky": "Acted dialogue, 8 bit (Beneath a Steel Sky)",
    "ljspeech": "Audiobook reading (LJ Speech)",
}
FIRST_PASSES = ("tiny.en", "tiny.en+10", "tiny.en+10+ctc", "base")
TEXTS = ("asr", "text", "length")
SPEECH = ("asr", "text_given_speech", "length")
BOTH = ("asr", "text", "text_given_speech", "length")
TEXT_AND_CTC = ("asr", "text", "ctc", "length")
ALL = ("asr", "text", "text_given_speech", "ctc", "length")
BEST = "text and CTC head, the scores of the bundle's weights"
ROWS = (  # name, model, components
    ("length weight tuned", "relisten-tiny", ("asr", "length")),
    ("text LM before any fine-tuning", "zeroshot", TEXTS),
    ("text LM fine-tuned on the same transcripts", "text-only", TEXTS),
    ("text LM fine-tuned, then MWER", "text-only-mwer", TEXTS),
    ("speech-text LM, text score only", "relisten-tiny", TEXTS),
    ("speech-text LM, text given speech only", "relisten-tiny", SPEECH),
    ("speech-text LM, both scores", "relisten-tiny", BOTH),
    ("CTC head alone, no LM", "relisten-tiny", ("asr", "ctc", "length")),
    ("CTC head and text LM before any fine-tuning", "zeroshot+ctc", TEXT_AND_CTC),
    (BEST, "relisten-tiny", TEXT_AND_CTC),
    ("all: text, text given speech, CTC head", "relisten-tiny", ALL),
    ("all, LM then tuned for MWER", "mwer", ALL),
    ("all, LM then adapted on speech alone", "adapted", ALL),
    ("control: text and CTC head, wrong speech", "wrong-speech", TEXT_AND_CTC),
)
COMPARED = (
    "text LM fine-tuned on the same transcripts",
    "speech-text LM, text score only",
    "control: text and CTC head, wrong speech",
)
HEAD = """# Results

Word error rates in per cent under the `english` normaliser, on development sets; the speakers of
speechocean are in no training set. In every row the weights are tuned on four fifths of a set's
speakers (of its utterances, where speakers are not known), and errors are counted on the other
fifth. Reductions are relative to the first pass with its length weight tuned, or untuned where that
is better, with 95 % intervals of a paired bootstrap over speakers. First pass: Whisper, beam 10;
+10: and ten samples; +ctc: and ten texts that the CTC head proposed
([richer lists](richer-lists.md)), all scored by Whisper. The control scores every hypothesis with
the speech of another recording: a gain that remains there does not come from the speech. Whisper
base as first pass, LJ Speech, and LMs without speech that were fine-tuned on the same transcripts
were measured with [the previous bundle](results-2026-11-23.md).
This page is written by `python benchmarks/results.py`; the journal (`LOG.md`) names the commands
and commits behind the stored scores.
"""


@dataclass(frozen=True)
class Row:
    name: str
    wer: float
    result: TuningResult | None = None
    speakers: Sequence[str] = ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scored", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    pages, records = [HEAD], []
    for name, title in SETS.items():
        columns = {fp: rows_of(options.scored, name, fp) for fp in FIRST_PASSES}
        columns = {fp: rows for fp, rows in columns.items() if rows}
        if columns:
            pages.append(section(title, columns))
            records += [
                {"set": name, "first_pass": fp, "row": row.name, "wer": round(row.wer, 5)}
                for fp, rows in columns.items()
                for row in rows
            ]
    if paths := sorted(options.scored.glob("*.dev-metrics.json")):
        pages.append(dev_metrics_section(paths))
    page = "\n".join(pages)
    if options.output:
        options.output.write_text(page)
    else:
        print(page)
    print(json.dumps(records))


def rows_of(folder: Path, name: str, first_pass: str) -> list[Row]:
    """The first pass's choice, merged, every row of ROWS that has its file, the oracle."""
    lists: dict[str, list[NBest]] = {}
    for model in dict.fromkeys(model for _, model, _ in ROWS):
        path = folder / f"{name}.{first_pass}.{model}.jsonl"
        if path.exists():
            lists[model] = relisten.load_nbest(path)
    if not lists:
        return []
    report = evaluate(next(iter(lists.values())))
    assert report.merged is not None
    rows = [
        Row("first pass's own choice", report.first_pass.words.rate),
        Row("merged, default length weight", report.merged.words.rate),
    ]
    for row_name, model, components in ROWS:
        if model in lists and has_scores(lists[model], components):
            tuned = fit_weights(lists[model], components=components)
            speakers = [u.speaker or u.id for u in lists[model]]
            speakers = speakers if len(set(speakers)) > 1 else [u.id for u in lists[model]]
            rows.append(Row(row_name, tuned.cross_validated_wer, tuned, speakers))
    return [*rows, Row("oracle", report.oracle.rate)]


def has_scores(nbests: Sequence[NBest], components: Sequence[str]) -> bool:
    """Whether the first list has all of these scores."""
    stored = {*nbests[0].hypotheses[0].scores, "length"}
    return stored >= set(components)


def section(title: str, columns: dict[str, list[Row]]) -> str:
    """The table of a set, and under it the paired differences between rows."""
    head = " | ".join(f"{fp} | reduction" for fp in columns)
    lines = [f"## {title}", "", f"| choice | {head} |", "|---" * (1 + 2 * len(columns)) + "|"]
    by_name = [{row.name: row for row in rows} for rows in columns.values()]
    for name in dict.fromkeys(name for rows in by_name for name in rows):
        lines.append(f"| {name} | " + " | ".join(cell(rows.get(name)) for rows in by_name) + " |")
    notes = [note for fp, rows in columns.items() for note in comparisons(fp, rows)]
    return "\n".join([*lines, "", *notes, ""])


def cell(row: Row | None) -> str:
    if row is None:
        return "not measured | "
    if row.result is None or row.name.startswith("length"):
        return f"{100 * row.wer:.2f} | "
    gain = row.result.gain
    return (
        f"{100 * row.wer:.2f} | {100 * gain.relative:.1f} % "
        f"[{100 * gain.relative_low:.1f}, {100 * gain.relative_high:.1f}]"
    )


def comparisons(first_pass: str, rows: Sequence[Row]) -> list[str]:
    """The paired differences between BEST and COMPARED: what the speech adds."""
    named = {row.name: row for row in rows}
    best = named.get(BEST)
    lines = []
    for name in COMPARED:
        other = named.get(name)
        if best is None or other is None or best.result is None or other.result is None:
            continue
        gain = paired_bootstrap(
            other.result.held_out_errors,
            best.result.held_out_errors,
            best.result.n_words,
            best.speakers,
        )
        lines.append(
            f"- {first_pass}: *{BEST}* is {100 * gain.relative:.1f} % "
            f"[{100 * gain.relative_low:.1f}, {100 * gain.relative_high:.1f}] below *{name}*."
        )
    return lines


def dev_metrics_section(paths: Sequence[Path]) -> str:
    """Nats per reference word of the development sets, for each model and order."""
    models = {
        path.name.removesuffix(".dev-metrics.json"): json.loads(path.read_text()) for path in paths
    }
    orders = list(dict.fromkeys(order for dev_metrics in models.values() for order in dev_metrics))
    lines = [
        "## Nats per reference word",
        "",
        "Whether a model uses the speech: the negative log-probability per word of 100 utterances "
        "of each development set named in its recipe, with their own recording and with another.",
        "",
        f"| model | {' | '.join(orders)} |",
        "|---" * (1 + len(orders)) + "|",
    ]
    for name, dev_metrics in models.items():
        cells = (f"{dev_metrics[order]:.2f}" if order in dev_metrics else "" for order in orders)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
