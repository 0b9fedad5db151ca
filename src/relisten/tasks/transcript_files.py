"""Where transcripts are written: a file or stream for all, or a file each in a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from relisten.core.types import Refusal, UsageError
from relisten.io.files import cannot_write, check_writable, is_stream, write_text
from relisten.tasks.cues import CueOptions
from relisten.tasks.inputs import AudioInput
from relisten.tasks.transcript import Transcript

ENDINGS = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt"}
RUN_NAME = "relisten"
"""Of a run in a folder of transcripts: relisten.partial, relisten.run.json."""


class TranscriptWriter:
    """Writes transcripts as they are finished: each file as a whole, or not at all.

    output: a file for all of them, which is written on a clean exit; "-" or a pipe is written into
    at once. output_dir: a folder, made where it is missing, with a file for each recording.
    made: what the run makes, for its log; None where that is a stream.
    Raises UsageError where something cannot be written, or one file cannot hold it all.
    """

    def __init__(
        self,
        inputs: Sequence[AudioInput | Refusal],
        output: str = "-",
        output_dir: str | None = None,
        format: str = "text",
        cues: CueOptions = CueOptions(),
    ) -> None:
        self._inputs = {one.label: one for one in inputs if isinstance(one, AudioInput)}
        self._output, self._format, self._cues = output, format, cues
        self._folder = None if output_dir is None else Path(output_dir)
        self._held: list[str] = []
        self.made: Path | None = None
        if self._folder is not None:
            if output != "-":
                raise UsageError(f"{output} and the folder {output_dir}: name one of them")
            self._make_folders()
            self.made = self._folder / RUN_NAME
        else:
            if format in ("srt", "vtt") and len(inputs) > 1:
                raise UsageError(
                    f"{format} holds one recording, and there are {len(inputs)}; name a folder "
                    "with --output-dir"
                )
            check_writable(output)
            self.made = None if is_stream(output) else Path(output)

    def _make_folders(self) -> None:
        assert self._folder is not None
        paths = [self._path(one) for one in self._inputs.values()]
        try:
            for folder in {self._folder, *(path.parent for path in paths)}:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(error.filename or self._folder, error) from error
        for path in paths:
            check_writable(path)

    def _path(self, one: AudioInput) -> Path:
        assert self._folder is not None
        return self._folder / f"{one.place}{ENDINGS[self._format]}"

    def finished(self, but: set[str]) -> list[AudioInput]:
        """The recordings whose files in the folder are newer than they are. but: labels of those
        that the log knows better."""
        if self._folder is None:
            return []
        known = self._inputs.items()
        return [one for label, one in known if label not in but and self._is_newer(one)]

    def _is_newer(self, one: AudioInput) -> bool:
        if not isinstance(one.source, str):
            return False
        try:
            return os.path.getmtime(self._path(one)) >= os.path.getmtime(one.source)
        except OSError:
            return False

    def write(self, transcript: Transcript) -> None:
        """Write a transcript, or keep it for the one file."""
        if self._folder is not None:
            text = transcript.render(self._format, self._cues)
            write_text(self._path(self._inputs[transcript.label]), text)
            return
        text = transcript.render(self._format, self._cues, is_named=len(self._inputs) > 1)
        if self._output == "-":
            write_text(self._output, text)
        else:
            self._held.append(text)

    def __enter__(self) -> TranscriptWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self._held:
            write_text(self._output, "".join(self._held))
