"""What both Whisper back ends know about the tokens of a transcript."""

from __future__ import annotations

START = "<|startoftranscript|>"
TRANSCRIBE = "<|transcribe|>"
NO_TIMESTAMPS = "<|notimestamps|>"
END = "<|endoftext|>"
NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")
"""What different releases call the token for it."""
MAX_ALIGNED_TOKENS = 440
"""Whisper's decoder has 448 positions, those of the prompt and of the end included."""


def language_token(language: str) -> str:
    """The token of a language's ISO code."""
    return f"<|{language}|>"
