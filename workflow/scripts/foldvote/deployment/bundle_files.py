"""The code that a bundle carries: copies of the library's own files, with their imports changed to one folder.

Each of them needs the standard library, numpy, Pillow and OpenCV at most. This module imports nothing else either,
because the workflow asks it at every start whether a bundle is up to date.
"""

import hashlib
import re
from pathlib import Path

FOLDER = "ingest"
_LIBRARY = Path(__file__).parent.parent
_PREDICT = "deployment/bundle_predict.py"
_INGEST = (
    "config/image_size.py",
    "data/cropping.py",
    "data/face_detector.py",
    "data/image_decoding.py",
    "data/image_integrity.py",
    "data/image_rules.py",
    "deployment/bundle_answers.py",
    "errors.py",
    "evaluation/conformal.py",
    "io/names.py",
    "io/paths.py",
    "submission/sample_matching.py",
)
_IMPORT = re.compile(r"^( *)from foldvote\.(?:\w+\.)*(\w+) import ", re.MULTILINE)


def bundled_code() -> dict[str, str]:
    """The text of each Python file of a bundle by its path in it."""
    files = {"predict.py": _PREDICT, **{f"{FOLDER}/{Path(name).name}": name for name in _INGEST}}
    code = {path: (_LIBRARY / name).read_text(encoding="utf-8") for path, name in files.items()}
    code[f"{FOLDER}/__init__.py"] = '"""The reading of images, as the workflow does it: copies of its files."""\n'
    return {path: _IMPORT.sub(rf"\1from {FOLDER}.\2 import ", text) for path, text in code.items()}


def bundled_code_digest() -> str:
    """Digest of these files: changed code writes a bundle anew."""
    texts = "\0".join(f"{path}\0{text}" for path, text in sorted(bundled_code().items()))
    return hashlib.sha256(texts.encode()).hexdigest()[:16]
