"""Owns the link between a figure and the data it shows: a SHA-256 digest in the file's metadata, written and read back.
Refuses everything in a file that would change from one run to the next: dates and software versions.
"""

import hashlib
import io
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_KEY = "data-digest"
_PNG_START = b"\x89PNG\r\n\x1a\n"


def data_digest(data: Any) -> str:
    """Of plain data: numbers, texts, lists and dicts."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, allow_nan=False).encode()).hexdigest()


def png_bytes(figure: "Figure", digest: str) -> bytes:
    return _bytes(figure, "png", {"Software": None, PNG_KEY: digest})


def pdf_bytes(figure: "Figure", digest: str) -> bytes:
    return _bytes(figure, "pdf", {"Creator": None, "Producer": None, "CreationDate": None, "Keywords": digest})


def both_bytes(figure: "Figure", digest: str) -> tuple[bytes, bytes]:
    """PDF and PNG of one layout, which takes as long as drawing; savefig would make it, and draw, twice for each."""
    import matplotlib

    if engine := figure.get_layout_engine():
        engine.execute(figure)
    with matplotlib.rc_context({"figure.constrained_layout.use": False}):  # else None is the usual engine again
        figure.set_layout_engine(None)  # "none" is an engine too
        return pdf_bytes(figure, digest), png_bytes(figure, digest)


def _bytes(figure: "Figure", form: str, metadata: dict[str, Any]) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format=form, metadata=metadata)
    return content.getvalue()


def read_digest(path: Path) -> str | None:
    """The digest in a PNG that this room wrote; None for any other file."""
    content = path.read_bytes()
    if not content.startswith(_PNG_START):
        return None
    at = len(_PNG_START)
    while at + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        key, _, value = content[at + 8 : at + 8 + length].partition(b"\0")
        if kind == b"tEXt" and key == PNG_KEY.encode():
            return value.decode("latin-1")
        at += length + 12  # length, kind and checksum
    return None
