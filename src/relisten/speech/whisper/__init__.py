"""Whisper: its first passes, encoder and decoder."""
