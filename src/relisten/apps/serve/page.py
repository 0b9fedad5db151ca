"""The page at `/`: three files that ask nothing of any other server."""

from importlib.resources import files

from fastapi import FastAPI, Response

FILES = {
    "/": ("index.html", "text/html"),
    "/style.css": ("style.css", "text/css"),
    "/script.js": ("script.js", "text/javascript"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; media-src blob:; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def add_page(app: FastAPI) -> None:
    """Serve the page, which uses the API as any client does."""
    for path, (name, media_type) in FILES.items():
        content = (files("relisten.apps.serve") / "static" / name).read_bytes()

        async def answer(content: bytes = content, media_type: str = media_type) -> Response:
            return Response(content, media_type=f"{media_type}; charset=utf-8", headers=HEADERS)

        app.add_api_route(path, answer, include_in_schema=False)
