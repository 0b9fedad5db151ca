"""Whisper: its first passes, its encoder and its decoder."""
