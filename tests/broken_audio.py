"""Files that are no recordings, of every kind that people, crawlers and crashes leave behind."""

from __future__ import annotations

import io
import struct
import wave

import numpy as np


def wav(seconds: float = 0.1, rate_hz: int = 16_000, **fields: bytes) -> bytes:
    """A WAV file; fields: bytes to put at `at_N`."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate_hz)
        writer.writeframes(np.arange(int(seconds * 16_000), dtype="<i2").tobytes())
    content = bytearray(file.getvalue())
    for name, value in fields.items():
        place = int(name.removeprefix("at_"))
        content[place : place + len(value)] = value
    return bytes(content)


def floats(value: float) -> bytes:
    """A WAV of 32 bit floats, all of one value."""
    head = {"at_20": struct.pack("<H", 3), "at_32": struct.pack("<HH", 4, 32)}
    return wav(0.0, **head)[:40] + struct.pack("<I", 3200) + np.full(800, value, "<f4").tobytes()


WHOLE = wav()
BROKEN = {
    "nothing": b"",
    "one byte": b"R",
    "zeros": bytes(4096),
    "noise": bytes(range(256)) * 16,
    "text": b"This is a letter, not a recording.\n" * 40,
    "text in UTF-16": "This is a letter.\n".encode("utf-16") * 40,
    "html": b"<!doctype html><title>404</title>" * 10,
    "xml": b'<?xml version="1.0"?><speak>Hello</speak>' * 10,
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><text>Hello</text></svg>',
    "json": b'{"audio": "a.wav"}',
    "subtitles": b"1\n00:00:00,000 --> 00:00:01,000\nHello\n\n" * 10,
    "script": b"#!/bin/sh\nrm -rf recordings\n" * 20,
    "png": b"\x89PNG\r\n\x1a\n" + bytes(200),
    "gif": b"GIF89a\x01\x00\x01\x00\x80\x00\x00" + bytes(100),
    "jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(200),
    "pdf": b"%PDF-1.7\n" + bytes(500),
    "zip": b"PK\x03\x04" + bytes(500),
    "gzip": b"\x1f\x8b\x08\x00" + bytes(500),
    "tar": b"a.wav" + bytes(252) + b"ustar\x0000" + bytes(500),
    "elf": b"\x7fELF" + bytes(500),
    "sqlite": b"SQLite format 3\x00" + bytes(500),
    "pickle": b"\x80\x04\x95" + bytes(300),
    "midi": b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x00\x60MTrk\x00\x00\x00\x00",
    "wav header alone": WHOLE[:44],
    "wav half a header": WHOLE[:20],
    "wav without samples": wav(0.0),
    "wav of 0 Hz": wav(at_24=bytes(4)),
    "wav of 0 channels": wav(at_22=bytes(2)),
    "wav of 0 bits": wav(at_32=bytes(4)),
    "wav of an unknown codec": wav(at_20=b"\xef\xbe"),
    "wav at 1 Hz": wav(rate_hz=1),
    "wav at 4 GHz": wav(at_24=b"\xff" * 4),
    "wav of NaN": floats(np.nan),
    "wav of infinities": floats(np.inf),
    "mp3 tag alone": b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10),
    "ogg page, torn": b"OggS\x00\x02" + bytes(20),
    "flac header alone": b"fLaC\x00\x00\x00\x22" + bytes(34),
    "mp4 box alone": b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom",
    "webm header alone": b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01" + bytes(60),
    "aiff header alone": b"FORM\x00\x00\x00\x2eAIFFCOMM" + bytes(26),
    "au header alone": b".snd\x00\x00\x00\x18\xff\xff\xff\xff\x00\x00\x00\x03" + bytes(8),
    "playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n",
    "ffconcat": b"ffconcat version 1.0\nfile '/etc/hostname'\n",
    "session description": b"v=0\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
}
