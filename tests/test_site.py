"""The site of the pages: its menu names what is there, and it is searched from the disk."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

PAGE = """<!doctype html><title>waiting</title><body>
<script src="iframe-worker.js"></script>
<script>
  const worker = new Worker("worker.js");
  worker.addEventListener("message", ({ data }) => { document.title = data.found; });
  worker.postMessage({ asked: "phrases" });
</script>"""
WORKER = """const ready = importScripts("more.js");
addEventListener("message", async ({ data }) => {
  await ready;
  postMessage({ found: look(data) });
});"""
"""As the theme's: it loads another script and answers later."""


def test_the_menu_names_pages_that_are_there_and_no_old_results() -> None:
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    menu = settings[settings.index("\nnav:") : settings.index("\nnot_in_nav:")]
    pages = re.findall(r": (\S+\.md)$", menu, re.M)
    assert len(pages) > 15
    assert [page for page in pages if not (DOCS / page).is_file()] == []
    assert not any("20" in page for page in pages)
    [polyfill] = re.findall(r"polyfills: \[(\S+)\]", settings)
    assert (DOCS / polyfill).is_file()
    assert "\n  - offline\n" in settings


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_a_worker_works_in_a_page_from_the_disk(tmp_path: Path) -> None:
    """Browsers run none there, so the search had no index."""
    assert CHROMIUM is not None
    shutil.copy(DOCS / "iframe-worker.js", tmp_path)
    (tmp_path / "page.html").write_text(PAGE)
    (tmp_path / "worker.js").write_text(WORKER)
    (tmp_path / "more.js").write_text("const look = (data) => `found ${data.asked}`;")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000"]
    done = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", (tmp_path / "page.html").as_uri()],
        capture_output=True,
        text=True,
    )
    assert "<title>found phrases</title>" in done.stdout
