"""Speech of any form becomes one manifest: what was written in a form is read back equal."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from relisten.core.types import FormatError, NBest, Refusal, UsageError
from relisten.io.nbest import load_nbest, resolve_audio, save_nbest
from relisten.tasks.learning.speech import describe_speech, gather_speech

SHARED = Path(__file__).parents[2] / "shared" / "data"
SETS = {
    "speechocean": "train.jsonl",
    "drascula": "train.jsonl",
    "kerstin": "dev.jsonl",
    "librispeech": "unlabelled.jsonl",
}
MADE_UP = [
    NBest("a2", audio="a2.wav", reference='He said "no", twice; then: Größe.', duration_s=2.5),
    NBest("a10", audio="a10.mp3", reference="It's 10 % | more", duration_s=3.0),
    NBest("b-1", audio="b-1.flac", reference="Жар-птица", duration_s=1.25),
]


@dataclass(frozen=True)
class Speech:
    """Utterances whose recordings lie in `folder`, no two of one name."""

    folder: Path
    utterances: list[NBest]

    def copy(self, to: Path) -> None:
        to.mkdir(parents=True, exist_ok=True)
        for u in self.utterances:
            shutil.copy(self.folder / u.audio, to / u.audio)


@pytest.fixture(params=["made up", *SETS])
def speech(request, tmp_path) -> Speech:
    """Every 50th utterance of a set, five at most, recordings and all."""
    folder = tmp_path / "original"
    folder.mkdir()
    if request.param == "made up":
        speakers = ("ann", "ann", "bob")
        made = [
            NBest(u.id, (), u.audio, 0.0, u.duration_s, u.reference, extra={"speaker": speaker})
            for u, speaker in zip(MADE_UP, speakers, strict=True)
        ]
        for u in made:
            (folder / u.audio).write_bytes(u.id.encode())
        return Speech(folder, made)
    manifest = SHARED / request.param / SETS[request.param]
    if not manifest.exists():
        pytest.skip(f"{manifest} is not here")
    some = []
    for u in load_nbest(manifest)[::50][:5]:
        source = resolve_audio(u, manifest)
        shutil.copy(source, folder / source.name)
        extra = {"speaker": u.speaker}
        some.append(
            NBest(source.stem, (), source.name, 0.0, u.duration_s, u.reference, extra=extra)
        )
    return Speech(folder, some)


def gather(tmp_path: Path, *sources: Path | str) -> tuple[list[NBest], tuple[Refusal, ...], str]:
    """The manifest of the sources, what was refused, and what was said."""
    said: list[str] = []
    manifest = tmp_path / "gathered" / "speech.jsonl"
    manifest.parent.mkdir(exist_ok=True)
    n, refused = gather_speech([str(source) for source in sources], manifest, said.append)
    utterances = load_nbest(manifest)
    assert len(utterances) == n
    return utterances, refused, "\n".join(said)


Form = Callable[[Speech, Path], Path]


def native(speech: Speech, folder: Path) -> Path:
    speech.copy(folder)
    save_nbest(speech.utterances, folder / "train.jsonl")
    return folder / "train.jsonl"


def gzipped(speech: Speech, folder: Path) -> Path:
    plain = native(speech, folder)
    packed = folder / "train.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    return packed


def write_lines(path: Path, records: list[dict]) -> Path:
    text = "".join(json.dumps(record) + "\n" for record in records)
    packed = path.suffix == ".gz"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return path


def without_nothing(record: dict) -> dict:
    return {key: value for key, value in record.items() if value is not None}


def nemo(speech: Speech, folder: Path) -> Path:
    speech.copy(folder / "wav")
    records = [
        without_nothing(
            {
                "audio_filepath": f"wav/{u.audio}",
                "duration": u.duration_s,
                "text": u.reference,
                "speaker": u.speaker,
            }
        )
        for u in speech.utterances
    ]
    return write_lines(folder / "manifest.json", records)


def table(speech: Speech, path: Path, delimiter: str, names: list[str], audio: str) -> Path:
    """Columns: recording, text, speaker, duration, of those names; the text last where it is None
    everywhere."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(names)
        for u in speech.utterances:
            writer.writerow([audio.format(u.audio), u.reference, u.speaker, u.duration_s])
    return path


def comma_table(speech: Speech, folder: Path) -> Path:
    speech.copy(folder)
    return table(speech, folder / "all.csv", ",", ["File", "Text", "Speaker", "duration"], "{}")


def semicolon_table(speech: Speech, folder: Path) -> Path:
    speech.copy(folder / "x")
    names = ["wav", "transcript", "spk_id", "duration_s"]
    return table(speech, folder / "all.csv", ";", names, "x/{}")


def absolute_table(speech: Speech, folder: Path) -> Path:
    names = ["audio", "transcription", "speaker_id", "duration"]
    return table(speech, folder / "all.tsv", "\t", names, str(speech.folder) + "/{}")


def common_voice(speech: Speech, folder: Path) -> Path:
    """As Mozilla writes it: no quoting at all, recordings in clips/."""
    speech.copy(folder / "clips")
    rows = ["client_id\tpath\tsentence\tup_votes\tage\tlocale"]
    rows += [f"{u.speaker}\t{u.audio}\t{u.reference or ''}\t2\t\ten" for u in speech.utterances]
    (folder / "validated.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def json_table(speech: Speech, folder: Path) -> Path:
    speech.copy(folder / "audio")
    records = [
        {"id": u.id, "audio": u.audio, "text": u.reference, "speaker": u.speaker}
        for u in speech.utterances
    ]
    return write_lines(folder / "all.jsonl", records)


def audio_folder(speech: Speech, folder: Path) -> Path:
    """Hugging Face's, in its layout with splits."""
    for split, some in (("train", speech.utterances[:-1]), ("test", speech.utterances[-1:])):
        Speech(speech.folder, some).copy(folder / split)
        write_lines(
            folder / split / "metadata.jsonl",
            [
                {"file_name": u.audio, "transcription": u.reference, "speaker_id": u.speaker}
                for u in some
            ],
        )
    return folder


def audio_folder_csv(speech: Speech, folder: Path) -> Path:
    speech.copy(folder / "data")
    names = ["file_name", "transcription", "speaker_id", "duration"]
    table(speech, folder / "metadata.csv", ",", names, "data/{}")
    return folder


def kaldi(speech: Speech, folder: Path) -> Path:
    """Paths count from the recipe's folder, two above the data's."""
    speech.copy(folder / "corpus")
    data = folder / "data" / "train"
    data.mkdir(parents=True)
    wav = [f"{u.id} corpus/{u.audio}" for u in speech.utterances]
    (data / "wav.scp").write_text("\n".join(wav) + "\n")
    texts = [f"{u.id} {u.reference}" for u in speech.utterances if u.reference]
    if texts:
        (data / "text").write_text("\n".join(texts) + "\n")
    speakers = [f"{u.id} {u.speaker}" for u in speech.utterances]
    (data / "utt2spk").write_text("\n".join(speakers) + "\n")
    return data


def lhotse_recording(u: NBest, folder: Path) -> dict:
    source = {"type": "file", "channels": [0], "source": str(folder / u.audio)}
    recording = {"id": f"rec-{u.id}", "sources": [source], "sampling_rate": 16000}
    n_samples = round(u.duration_s * 16000)
    return {**recording, "num_samples": n_samples, "duration": u.duration_s, "channel_ids": [0]}


def lhotse_supervision(u: NBest) -> dict:
    known = {"id": u.id, "recording_id": f"rec-{u.id}", "start": 0.0, "duration": u.duration_s}
    return without_nothing({**known, "channel": 0, "text": u.reference, "speaker": u.speaker})


def lhotse_cuts(speech: Speech, folder: Path) -> Path:
    speech.copy(folder)
    cuts = [
        {
            "id": u.id,
            "start": 0.0,
            "duration": u.duration_s,
            "channel": 0,
            "supervisions": [lhotse_supervision(u)],
            "recording": lhotse_recording(u, folder),
            "type": "MonoCut",
        }
        for u in speech.utterances
    ]
    return write_lines(folder / "my_cuts_train.jsonl.gz", cuts)


def lhotse_pair(speech: Speech, folder: Path) -> Path:
    speech.copy(folder)
    recordings = [lhotse_recording(u, folder) for u in speech.utterances]
    write_lines(folder / "x_recordings_train.jsonl.gz", recordings)
    supervisions = [lhotse_supervision(u) for u in speech.utterances]
    write_lines(folder / "x_supervisions_train.jsonl.gz", supervisions)
    return folder


def recordings_beside_texts(speech: Speech, folder: Path) -> Path:
    for n, u in enumerate(speech.utterances):
        place = folder / "train" / u.speaker
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(speech.folder / u.audio, place / u.audio)
        if u.reference is not None:
            text = place / Path(u.audio).with_suffix(".lab" if n % 2 else ".txt").name
            text.write_text(u.reference + "\n", encoding="utf-8-sig")
    return folder


FORMS: list[Form] = [
    *(native, gzipped, nemo, comma_table, semicolon_table, absolute_table, common_voice),
    *(json_table, audio_folder, audio_folder_csv, kaldi, lhotse_cuts, lhotse_pair),
    recordings_beside_texts,
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_what_is_written_in_a_form_is_read_back_equal(form, speech, tmp_path):
    """Ids, texts to the letter, speakers, and recordings to the byte."""
    folder = tmp_path / "user's own"
    folder.mkdir()
    utterances, refused, said = gather(tmp_path, form(speech, folder))
    assert refused == ()
    expected = {u.id: u for u in speech.utterances}
    told = form is not recordings_beside_texts or len({u.speaker for u in speech.utterances}) > 1
    assert {u.id for u in utterances} == {*expected}
    for u in utterances:
        original = expected[u.id]
        assert (u.reference, u.speaker) == (original.reference, original.speaker if told else None)
        found = resolve_audio(u, tmp_path / "gathered" / "speech.jsonl")
        assert found.read_bytes() == (speech.folder / original.audio).read_bytes()
        assert u.duration_s in (None, original.duration_s)
        assert u.hypotheses == ()
    n_texts = sum(u.reference is not None for u in speech.utterances)
    assert f" {n_texts} with a text" in said or form is audio_folder
    again, _, _ = (
        gather(tmp_path, folder) if form is recordings_beside_texts else (utterances, 0, 0)
    )
    assert again == utterances


def test_ljspeech_is_read_as_it_is_spoken(tmp_path):
    """Ids without ending, recordings in wavs/, quotes that are never closed; no header."""
    (tmp_path / "wavs").mkdir()
    rows = ['LJ001-0007|"in 1455|"in fourteen fifty-five', "LJ001-0008|never|never"]
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    for name in ("LJ001-0007", "LJ001-0008"):
        (tmp_path / "wavs" / f"{name}.wav").touch()
    (first, second), refused, said = gather(tmp_path, tmp_path)
    assert (first.id, first.reference) == ("LJ001-0007", '"in fourteen fifty-five')
    assert (second.audio, refused) == ("../wavs/LJ001-0008.wav", ())
    assert "recordings from 'id' in wavs, text from 'text'" in said


def test_librispeech_has_its_transcripts_in_one_file_a_chapter(tmp_path):
    """train-clean-5 and dev-clean-2 are no speakers; a transcript without recording is refused."""
    for part, speaker, chapter in (("train-clean-5", "19", "198"), ("dev-clean-2", "84", "121123")):
        place = tmp_path / "LibriSpeech" / part / speaker / chapter
        place.mkdir(parents=True)
        name = f"{speaker}-{chapter}"
        lines = [f"{name}-{n:04d} CHAPTER {n}" for n in range(3)]
        (place / f"{name}.trans.txt").write_text("\n".join(lines) + "\n")
        for n in range(2):
            (place / f"{name}-{n:04d}.flac").touch()
    utterances, refused, said = gather(tmp_path, tmp_path / "LibriSpeech")
    assert [(u.id, u.reference, u.speaker) for u in utterances] == [
        ("84-121123-0000", "CHAPTER 0", "84"),
        ("84-121123-0001", "CHAPTER 1", "84"),
        ("19-198-0000", "CHAPTER 0", "19"),
        ("19-198-0001", "CHAPTER 1", "19"),
    ]
    assert [r.id for r in refused] == ["84-121123-0002", "19-198-0002"]
    assert "84-121123.trans.txt:3 '84-121123-0002': its recording is not" in refused[0].reason
    assert "2 speakers from LibriSpeech's numbers 19, 84" in said


def test_kaldi_segments_and_commands(tmp_path):
    """A command is never run; -1 is the end; one speaker an utterance is no speaker at all."""
    (tmp_path / "a.wav").touch()
    (tmp_path / "wav.scp").write_text("rec-a a.wav\nrec-b sox b.wav -t wav - |\nrec-c c.ark:12\n")
    segments = ["u1 rec-a 0.5 2.25", "u2 rec-a 2.25 -1", "u3 rec-b 0 1", "u4 rec-c 0 1"]
    segments += ["u5 rec-a 3 3", "u6 rec-x 0 1"]
    (tmp_path / "segments").write_text("\n".join(segments))
    (tmp_path / "text").write_text("u1 one\nu2\nu9 nine\n")
    (tmp_path / "utt2spk").write_text("u1 u1\nu2 u2\n")
    (one, two), refused, _ = gather(tmp_path, tmp_path)
    assert (one.audio, one.start_s, one.duration_s, one.reference) == ("../a.wav", 0.5, 1.75, "one")
    assert (two.start_s, two.duration_s, two.reference, two.speaker) == (2.25, None, "", None)
    reasons = {r.id: r.reason for r in refused}
    assert "wav.scp:2 'rec-b': is a command (sox b.wav" in reasons["u3"]
    assert "lies in an archive" in reasons["u4"]
    assert "segments:5 'u5': ends at 3.0 s" in reasons["u5"]
    assert "'rec-x' is not in wav.scp" in reasons["u6"]
    assert "text:3 'u9': is not in segments" in reasons["u9"]
    assert len(refused) == 5


def test_lhotse_supervisions_of_a_long_cut_and_what_cannot_be_read(tmp_path):
    """Supervisions are cut from the recording, 10 + 2.5 s, also where they begin before the cut."""
    (tmp_path / "long.wav").touch()
    u = NBest("u", audio="long.wav", duration_s=60.0)
    recording = lhotse_recording(u, tmp_path)
    said = [
        {"id": "s1", "recording_id": "r", "start": 2.5, "duration": 1.5, "text": "one"},
        {"id": "s2", "recording_id": "r", "start": -1.0, "duration": 3.0, "text": "two"},
    ]
    long = {"id": "c1", "start": 10.0, "duration": 20.0, "supervisions": said, "type": "MonoCut"}
    fast = {**recording, "transforms": [{"name": "Speed", "kwargs": {"factor": 1.1}}]}
    piped = {**recording, "sources": [{"type": "command", "channels": [0], "source": "sox"}]}
    stereo = {**recording, "sources": [{**recording["sources"][0], "channels": [0, 1]}]}
    bare = {"start": 0.0, "duration": 4.0, "type": "MonoCut"}
    cuts = [
        {**long, "recording": recording},
        {"id": "mixed", "tracks": [], "type": "MixedCut"},
        {"id": "fast", **bare, "recording": fast},
        {"id": "piped", **bare, "recording": piped},
        {"id": "left", **bare, "recording": stereo, "channel": 0},
        {"id": "right", **bare, "recording": stereo, "channel": [1]},
        {"id": "odd", **bare, "recording": recording, "supervisions": ["text"]},
        {"id": "silent", **bare, "recording": recording},
        {"id": "both", **bare, "recording": stereo, "channel": [0, 1]},
    ]
    read, refused, _ = gather(tmp_path, write_lines(tmp_path / "cuts.jsonl", cuts))
    assert [(u.id, u.start_s, u.duration_s, u.reference) for u in read] == [
        ("s1", 12.5, 1.5, "one"),
        ("s2", 9.0, 3.0, "two"),
        ("silent", 0.0, 4.0, None),
        ("both", 0.0, 4.0, None),
    ]
    expected = {"mixed": "several tracks", "fast": "by Speed", "piped": "is command"}
    expected["odd"] = "supervisions is no list"
    for refusal in refused:
        assert expected.get(refusal.id, "of 2, and recordings are read with all") in refusal.reason
    assert {r.id for r in refused} == {"mixed", "fast", "piped", "left", "right", "odd"}


def test_a_bad_row_is_refused_and_the_others_are_read(tmp_path):
    (tmp_path / "all.csv").write_text(
        "path,sentence,start,end\na.wav,one,0,1.5\na.wav,two\n,three,0,1\na.wav,four,2,1\n"
        "a.wav,five,x,9\na.wav,,00:00:02,3.25\n"
    )
    (one, six), refused, said = gather(tmp_path, tmp_path / "all.csv")
    assert (one.id, one.start_s, one.duration_s, one.reference) == ("a-0", 0.0, 1.5, "one")
    assert (six.start_s, six.duration_s, six.reference) == (2.0, 1.25, None)
    places = [r.reason.split(":")[1].split(" ")[0] for r in refused]
    assert places == ["3", "4", "5", "6"]
    assert "recordings from 'path', text from 'sentence', start from 'start'" in said
    assert "2 utterances, 1 with a text; 4 could not be read" in said


def test_a_torn_first_line_does_not_hide_what_the_file_is(tmp_path):
    for line, torn in (
        ('{"id": "a", "audio": "a.wav"}', '{"id": "b", '),
        ('{"audio": "a.wav"}', "{"),
    ):
        (tmp_path / "all.jsonl").write_text(f"{torn}\n{line}\n")
        (u,), (refusal,), _ = gather(tmp_path, tmp_path / "all.jsonl")
        assert u.id == "a"
        assert "all.jsonl:1: is not one JSON object" in refusal.reason


def test_the_row_numbers_that_pandas_writes_are_no_ids(tmp_path):
    (tmp_path / "all.csv").write_text(",path,text,age\n0,a.wav,one,9\n1,b.wav,two,\n")
    (a, b), _, _ = gather(tmp_path, tmp_path / "all.csv")
    assert (a.id, a.start_s, dict(a.extra)) == ("a", 0.0, {"age": "9"})
    assert (b.id, b.reference, dict(b.extra)) == ("b", "two", {})


def test_names_that_no_file_can_have_are_no_faults(tmp_path):
    """The null byte is refused here; the name that is too long, where the recording is opened."""
    rows = f"path,sentence\na.wav,one\n\0.wav,two\n{'x' * 5000}.wav,three\n"
    (tmp_path / "all.csv").write_text(rows)
    read, refused, _ = gather(tmp_path, tmp_path / "all.csv")
    assert [u.reference for u in read] == ["one", "three"]
    assert "null byte" in refused[0].reason


def test_a_broken_line_of_a_manifest_is_refused_with_its_place(tmp_path):
    path = tmp_path / "train.jsonl"
    good = '{"id": "%s", "audio": "%s.wav", "reference": "yes", "scored_by": {}}\n'
    path.write_text(
        good % ("a", "a") + '{"id": "b", "au\n' + '{"id": "c", "reference": "no"}\n'
        '{"id": "a", "audio": "d.wav"}\n' + good % ("e", "e")
    )
    read, refused, _ = gather(tmp_path, path)
    assert [(u.id, dict(u.extra)) for u in read] == [("a", {}), ("e", {})]
    assert refused[0].reason.startswith(f"{path}:2: is not one JSON object")
    assert "'c': has no audio; add the key 'audio'" in refused[2].reason or refused[1].reason
    assert f"{path}:4 'a': this id occurs twice" in " ".join(r.reason for r in refused)
    assert len(refused) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "id,text\na,b\n", "names no column of recordings; begin the file with"),
        ("x.csv", "", "is empty"),
        ("x.tsv", "path\tpath\na\tb\n", "two columns have one name"),
        ("x.tsv", "a.wav\tann\thello\n", "begin the file with a line of column names"),
        ("x.jsonl", '{"audio": 3}\n', "names no recording"),
        (
            "x_supervisions.jsonl",
            '{"id":"a","recording_id":"r","start":0,"duration":1}\n',
            "beside",
        ),
        ("wav.scp", "a a.wav\na b.wav\n", "wav.scp:2 'a': occurs twice"),
        ("x.bin", b"\xff\xfe\x00", "is not UTF-8"),
        ("x.jsonl.gz", gzip.compress(b'{"id": "a"}' * 99, mtime=0)[:-9], "cannot be read"),
    ],
)
def test_a_source_that_cannot_be_read_ends_with_a_sentence(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FormatError, match=message) as raised:
        gather(tmp_path, path)
    assert str(path) in str(raised.value)
    assert not (tmp_path / "gathered" / "speech.jsonl").exists()


def test_nothing_to_read(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").touch()
    with pytest.raises(FormatError, match="holds no recordings"):
        gather(tmp_path, tmp_path / "empty")
    with pytest.raises(FormatError, match="no such file"):
        gather(tmp_path, tmp_path / "missing")
    with pytest.raises(UsageError, match="no speech was named"):
        gather(tmp_path)


def test_ids_of_several_sources_get_the_name_of_theirs(tmp_path):
    """And only those that clash; recordings of one name get their folders."""
    for place in ("one/train", "two/train", "three/s1", "three/s2"):
        (tmp_path / place).mkdir(parents=True)
    for place in ("one", "two"):
        clash = NBest("a", audio="a.wav", reference=place)
        save_nbest([clash, NBest(place, audio="b.wav")], tmp_path / place / "train.jsonl")
    for speaker in ("s1", "s2"):
        (tmp_path / "three" / speaker / "c.wav").touch()
    sources = [*(tmp_path / place / "train.jsonl" for place in ("one", "two")), tmp_path / "three"]
    read, _, said = gather(tmp_path, *sources)
    assert [u.id for u in read] == ["train-a", "one", "train-2-a", "two", "s1/c", "s2/c"]
    assert [u.speaker for u in read[-2:]] == ["s1", "s2"]
    assert "ids of several sources begin with the source's name (1): 'a' is 'train-a' now" in said
    again, _, _ = gather(tmp_path, *sources)
    assert again == read


def test_a_manifest_beside_its_recordings_is_not_read_twice_over(tmp_path):
    """`learn data/*` names both the list and the folder of its recordings; a link leads back up."""
    clips = tmp_path / "data" / "clips"
    clips.mkdir(parents=True)
    for name in ("a.wav", "b.wav"):
        (clips / name).touch()
    os.symlink(tmp_path / "data", clips / "loop")
    listed = tmp_path / "data" / "list.csv"
    listed.write_text(f"path,text\n{clips / 'a.wav'},one\n")
    read, refused, said = gather(tmp_path, listed, clips, listed)
    assert [(u.id, u.reference) for u in read] == [("a", "one"), ("b", None)]
    assert "left out without a text, because another source gives them one: 1" in said
    assert "was named before; it is read once" in said
    assert refused == ()


def test_recordings_themselves_and_a_stream(tmp_path, monkeypatch):
    (tmp_path / "a.wav").touch()
    (tmp_path / "a.txt").write_text("one\n two \n")
    (u,), _, _ = gather(tmp_path, tmp_path / "a.wav")
    assert (u.id, u.audio, u.reference) == ("a", "../a.wav", "one two")
    monkeypatch.chdir(tmp_path)
    read_end, write_end = os.pipe()
    os.write(write_end, b'{"id": "p", "audio": "a.wav", "reference": "piped"}\n')
    os.close(write_end)
    with open(read_end, encoding="utf-8") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        (u,), _, _ = gather(tmp_path, "-")
    assert (u.id, u.audio, u.reference) == ("p", "../a.wav", "piped")


def test_what_a_folder_holds_besides_is_said(tmp_path):
    """A list lies beside the recordings that it is of; a text has no recording."""
    for name in (
        "train.jsonl",
        "a.wav",
        "a.mp3",
        "a.txt",
        "b.txt",
        "x.log",
        "README",
        ".hidden.wav",
    ):
        (tmp_path / name).touch()
    read, refused, said = gather(tmp_path, tmp_path)
    assert [(u.id, u.reference) for u in read] == [("a.mp3", ""), ("a.wav", "")]
    assert (
        "texts from the files beside them, not read: README, b.txt, train.jsonl and 1 more" in said
    )
    assert "name a file to read it as a list of recordings" in said
    assert refused == ()


def test_texts_are_composed_letters_with_single_spaces(tmp_path):
    row = 'a.wav,"Die Gro\u0308\u00dfe\nist  gut"\n'
    (tmp_path / "a.csv").write_text("path,text\n" + row, encoding="utf-8")
    (u,), _, _ = gather(tmp_path, tmp_path / "a.csv")
    assert u.reference == "Die Gr\u00f6\u00dfe ist gut"


def test_nemo_lines_that_do_not_fit_leave_the_others(tmp_path):
    """Segments of one file are told apart by their start; predictions are no references."""
    lines = [
        '{"audio_filepath": "a.wav", "offset": 1.5, "duration": 2, "text": "one"}',
        '{"audio_filepath": "a.wav", "offset": 3.5, "duration": 2, "pred_text": "two"}',
        '{"audio_filepath": "a.wav", "offset": "x", "duration": 2, "text": "three"}',
        '{"audio_filepath": "b.wav", "dur',
    ]
    (tmp_path / "m.json").write_text("\n".join(lines))
    read, refused, _ = gather(tmp_path, tmp_path / "m.json")
    assert [(u.id, u.start_s, u.duration_s, u.reference) for u in read] == [
        ("a-1.5", 1.5, 2.0, "one"),
        ("a-3.5", 3.5, 2.0, None),
    ]
    assert [r.reason.split(":")[1].split(" ")[0] for r in refused] == ["3", "4"]


def test_description():
    """0.5 + 0.5 h; two reasons of one kind are one sentence."""
    learnt = [
        NBest("a", duration_s=1800.0, reference="x", extra={"speaker": "s"}),
        NBest("b", duration_s=1800.0),
        NBest("c", reference="y"),
    ]
    left_out = [
        Refusal("d", "lasts 31.5 s, and at most 30 s are learnt from at once"),
        Refusal("e", "speech/e.wav: no such file"),
        Refusal("f", "lasts 99.0 s, and at most 30 s are learnt from at once"),
    ]
    assert describe_speech(learnt, [NBest("h", duration_s=36.0, reference="z")], left_out) == [
        "learnt from: 1.00 h, 3 utterances, 2 with a text, 1 of unknown duration, 1 speaker",
        "held out: 0.01 h, 1 utterance, 1 with a text",
        "2 left out, for example 'd': lasts 31.5 s, and at most 30 s are learnt from at once",
        "1 left out: 'e': speech/e.wav: no such file",
    ]
