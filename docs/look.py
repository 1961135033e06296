"""Open a page (report.html, data_check.html) in a headless Chromium: check that it works, and take pictures of it.

    python docs/look.py results/report.html pictures/

It checks that there are no network requests and no messages on the console, that tables sort, tabs switch, and a cell
of a confusion matrix opens its images; a fault ends it with exit code 1. Screenshots: wide and phone, light and dark.
The browser is found by its usual names (Debian: the package `chromium`).
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from html import unescape
from pathlib import Path
from xml.sax.saxutils import quoteattr

from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = {"wide": 1280, "phone": 390}  # pixels
NARROWEST = 500  # pixels: no headless window is narrower, so each page stands in a frame of its width
TALLEST = 16_000  # pixels of a picture
_FRAME = """<!doctype html><title>-</title><body style="margin:0">
<iframe src="{address}" style="border:0;width:{width}px;height:{height}px"></iframe>
<script>addEventListener("message", (event) => { document.title = event.data; });</script>"""
_PROBE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const found = {faults};
  const check = (name, right) => { if (!right) found.push(name); };
  const number = (cell) => cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  for (const table of document.querySelectorAll("table.sortable")) {
    const place = [...table.tHead.rows[0].cells].findIndex((head) => head.classList.contains("number"));
    if (place < 0) continue;
    table.tHead.rows[0].cells[place].querySelector("button").click();
    const values = [...table.tBodies[0].rows].map((row) => number(row.cells[place])).filter((value) => value !== null);
    check(`sorting ${table.caption.textContent}`, values.every((value, at) => !at || values[at - 1] >= value));
  }
  for (const tab of document.querySelectorAll('[role="tab"]')) {
    tab.click();
    check(`tab ${tab.textContent}`, !document.getElementById(tab.getAttribute("aria-controls")).hidden);
  }
  const cells = [...document.querySelectorAll("button.cell")];
  for (const cell of cells) {
    cell.click();
    const opened = document.getElementById(cell.getAttribute("aria-controls"));
    const shown = opened.querySelectorAll("img.image").length;
    const all = Number(cell.textContent.replaceAll(",", ""));
    check(`cell ${cell.title}`, cell.getAttribute("aria-expanded") === "true" && shown > 0 && shown <= all);
    cell.click();
    check(`closing ${cell.title}`, !opened.childElementCount);
  }
  document.querySelectorAll("img[data-image]").forEach(show);
  for (const image of document.querySelectorAll("img[data-image]"))
    check(`picture ${image.alt}`, image.src.startsWith("data:image/"));
  for (const entry of performance.getEntriesByType("resource"))
    check(`network ${entry.name}`, entry.name.startsWith("data:"));
  check("wider than the window", document.documentElement.scrollWidth <= innerWidth);
  const height = document.documentElement.scrollHeight;
  parent.postMessage(`PROBED ${JSON.stringify({ height, faults: found })}`, "*");
}, 300));
</script>
"""
_EARLY = """<script>
const probed = [];
addEventListener("error", (event) => probed.push(`error ${event.message}`));
addEventListener("securitypolicyviolation", (event) => probed.push(`refused ${event.blockedURI}`));
</script>"""


def look(page: Path, folder: Path) -> list[str]:
    """Check a page and take its pictures; faults come back as lines."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"no browser found: install one of {', '.join(BROWSERS)}")
    folder.mkdir(parents=True, exist_ok=True)
    faults = []
    with tempfile.TemporaryDirectory() as scratch:
        probed = Path(scratch, "probed.html")
        text = page.read_text(encoding="utf-8")
        text = text.replace("<head>", "<head>" + _EARLY, 1)
        probed.write_text(text.replace("</body>", _PROBE.replace("{faults}", "probed") + "</body>"), encoding="utf-8")
        for name, width in WIDTHS.items():
            framed = _framed(probed, scratch, width, 900)
            printed = _run(browser, scratch, width, 900, "--enable-logging=stderr", "--dump-dom", framed)
            told = re.search(r"<title>PROBED (.*?)</title>", printed)
            answer = json.loads(unescape(told[1])) if told else {"height": 900, "faults": ["its script did not end"]}
            faults += [f"{name}: {fault}" for fault in answer["faults"] + re.findall(r"CONSOLE.*", printed)]
            height = min(answer["height"], TALLEST)
            framed = _framed(page, scratch, width, height)
            for theme, number in (("light", 1), ("dark", 0)):
                shot = folder / f"{page.stem}-{name}-{theme}.png"
                in_theme = f"--blink-settings=preferredColorScheme={number}"
                _run(browser, scratch, width, height, in_theme, f"--screenshot={shot.resolve()}", framed)
                with Image.open(shot) as whole:
                    cut = whole.crop((0, 0, width, whole.height))
                cut.save(shot)
    return faults


def _framed(page: Path, scratch: str, width: int, height: int) -> str:
    """The address of a page that shows another one in a frame of this size."""
    texts = {"address": quoteattr(page.resolve().as_uri())[1:-1], "width": str(width), "height": str(height)}
    framed = Path(scratch, "framed.html")
    framed.write_text(re.sub(r"\{(\w+)\}", lambda found: texts.get(found[1], found[0]), _FRAME), encoding="utf-8")
    return framed.as_uri()


def _run(browser: str, scratch: str, width: int, height: int, *arguments: str) -> str:
    fixed = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=15000"]
    fixed += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    fixed += [f"--user-data-dir={scratch}/profile", f"--window-size={max(width, NARROWEST)},{height}"]
    done = subprocess.run([browser, *fixed, *arguments], capture_output=True, text=True, timeout=300, check=False)
    return done.stdout + done.stderr


if __name__ == "__main__":
    found = look(Path(sys.argv[1]), Path(sys.argv[2]))
    print("\n".join(found) or "no fault")
    sys.exit(bool(found))
