"""The command `relisten serve`."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from relisten.apps.console import note
from relisten.apps.options import (
    options,
    placement_options,
    quiet_option,
    second_pass_options,
    taken,
)
from relisten.core.types import UsageError

if TYPE_CHECKING:
    from relisten.apps.serve.app import ServiceOptions
    from relisten.tasks.second_pass import SecondPass

TOKEN_VARIABLE = "RELISTEN_TOKEN"
NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
LOOPBACK = ("127.0.0.1", "localhost", "::1")

address_options = options(
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at."),
    click.option(
        "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any."
    ),
    click.option(
        "--token-file",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False),
        help=f"Holds the token that clients must send (their api_key); or set {TOKEN_VARIABLE}.",
    ),
    click.option(
        "--no-token", is_flag=True, help="Listen beyond this machine though anybody may ask."
    ),
    click.option(
        "--alias",
        multiple=True,
        default=("whisper-1",),
        show_default=True,
        metavar="NAME",
        help="Further name of the model, for clients that have one built in. May be given again.",
    ),
)
limit_options = options(
    click.option(
        "--max-size",
        default=512,
        show_default=True,
        metavar="MIB",
        type=click.IntRange(1),
        help="Of a request.",
    ),
    click.option(
        "--max-duration",
        default=4 * 3600.0,
        show_default=True,
        metavar="SECONDS",
        type=click.FloatRange(1),
        help="Of a recording.",
    ),
    click.option(
        "--queue",
        default=64,
        show_default=True,
        type=click.IntRange(1),
        help="Requests worked on or waiting; more are told to come back (429).",
    ),
    click.option(
        "--timeout",
        default=600.0,
        show_default=True,
        metavar="SECONDS",
        type=click.FloatRange(1),
        help="For one request.",
    ),
)


@click.command(epilog="Example: relisten serve --port 8000")
@address_options
@second_pass_options
@limit_options
@placement_options
@quiet_option
def serve(
    host: str,
    port: int,
    token_file: str | None,
    no_token: bool,
    alias: tuple[str, ...],
    max_size: int,
    max_duration: float,
    queue: int,
    timeout: float,
    quiet: bool,
    **models: Any,
) -> None:
    """Transcribe over HTTP: OpenAI's audio API, and a page for the browser.

    Any OpenAI client works with base_url http://127.0.0.1:8000/v1. Beyond this machine a token is
    needed; put a proxy with TLS in front. The first SIGTERM or Ctrl+C finishes what was accepted.
    """
    check_installed()
    token = read_token(token_file)
    if token is None and host not in LOOPBACK and not no_token:
        raise UsageError(
            f"--host {host}: others could use this server; set {TOKEN_VARIABLE}, name a "
            "--token-file, or say --no-token"
        )
    from relisten.apps.serve.app import ServiceOptions
    from relisten.apps.serve.gate import Limits

    note("loading the models", quiet)
    second_pass, language = load_second_pass(models)
    service = ServiceOptions(
        (models["model"], *alias),
        language,
        Limits(max_size << 20, max_duration, queue, timeout),
        token,
        LOOPBACK if token is None and host in LOOPBACK else (),
    )
    with suppress(KeyboardInterrupt):  # Ctrl+C is how one ends it
        run(second_pass, service, host, port, quiet)


def check_installed() -> None:
    """Raises UsageError where a package of the extra `serve` is missing."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise UsageError(
            f"relisten serve needs {', '.join(missing)}, not installed here; run `pip install "
            "'relisten[serve]'`"
        )


def read_token(path: str | None) -> str | None:
    """The token of a file, or of the environment; None where there is none.

    Raises UsageError for an empty file."""
    if path is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    with open(path, encoding="utf-8") as file:
        token = file.read().strip()
    if not token:
        raise UsageError(f"{path}: holds no token; write one line")
    return token


def load_second_pass(given: dict[str, Any]) -> tuple[SecondPass, str]:
    """All that the options of the command name, loaded, and the language of the recogniser."""
    from relisten.speech.first_pass import DecodingOptions
    from relisten.tasks.bias import read_phrases
    from relisten.tasks.both_passes import load_both_passes
    from relisten.tasks.second_pass import SecondPassOptions
    from relisten.tasks.weights import load_weights

    given = dict(given)
    phrases, weights = given.pop("phrases"), given.pop("weights")
    decoding = taken(DecodingOptions, given)
    options = taken(
        SecondPassOptions,
        given,
        phrases=read_phrases(phrases) if phrases else (),
        weights=load_weights(weights) if weights else None,
    )
    second_pass = load_both_passes(**given, decoding=decoding, options=options)
    assert second_pass.rescorer is not None
    return second_pass, given["language"] or second_pass.rescorer.language


def run(
    second_pass: SecondPass, options: ServiceOptions, host: str, port: int, quiet: bool
) -> None:
    """Serve until a signal ends it, then finish what was accepted."""
    import uvicorn

    from relisten.apps.serve.app import Service
    from relisten.apps.serve.protocol import ImpatientProtocol

    uvicorn.run(
        Service(second_pass, options).asgi,
        host=host,
        port=port,
        http=ImpatientProtocol,
        ws="none",
        log_level="warning" if quiet else "info",
        timeout_graceful_shutdown=round(options.limits.timeout_s),
        server_header=False,
    )
