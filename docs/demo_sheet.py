"""Draw docs/demo.png: some people of the embedded demo, one row per person with its seven photographs.

Run it from the repository's root after a change of the demo's drawings: python docs/demo_sheet.py [PATH]
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow/scripts"))

from demo_faces.folder import draw_demo
from foldvote.io.files import whole_file

ROWS = (2, 1, 10, 5)  # rows of train.csv without a planted error: both genders, every age band
SHOTS = ("mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal")
HEIGHT, WIDTH, GAP, CAPTION = 160, 120, 4, 22  # pixels


def draw_sheet(path: Path) -> None:
    """Write the contact sheet: a palette PNG, the same bytes at every run with the same packages."""
    shape = (len(SHOTS) * (WIDTH + GAP) - GAP, len(ROWS) * (HEIGHT + GAP) + CAPTION)
    sheet = Image.new("RGB", shape, "white")
    with tempfile.TemporaryDirectory() as folder:
        draw_demo(folder, profiles=max(ROWS) + 1, test_profiles=1, picture_size="256x192", seed=42)
        lines = (Path(folder) / "train/train.csv").read_text(encoding="utf-8").splitlines()[1:]
        for place, row in enumerate(ROWS):
            person = Path(folder) / "train/images" / lines[row].rsplit(",", 1)[1]
            for column, shot in enumerate(SHOTS):
                picture = Image.open(next(person.glob(f"{shot}.*"))).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
                sheet.paste(picture, (column * (WIDTH + GAP), place * (HEIGHT + GAP)))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, shot in enumerate(SHOTS):
        middle = (column * (WIDTH + GAP) + WIDTH / 2, shape[1] - CAPTION / 2)
        pen.text(middle, shot, fill="#333333", font=font, anchor="mm")
    with whole_file(path) as temporary:
        sheet.quantize(256, dither=Image.Dither.NONE).save(temporary, "PNG", optimize=True)


if __name__ == "__main__":
    draw_sheet(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("demo.png"))
