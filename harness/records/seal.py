"""Owns how a record shows that nothing in it was changed: result.json holds the SHA-256 of every other file, and its
last line that of all its own bytes before it.
Refuses to keep anyone from writing a new seal: it finds accidents and careless edits, not forgers.
"""

import hashlib

END = b"\n}\n"  # of a JSON object as the writer indents it


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sealed(content: bytes) -> bytes:
    """The same JSON object with one line more."""
    told = content.removesuffix(END)
    return told + _seal(told)


def is_sealed(content: bytes) -> bool:
    told = content[: -len(_seal(b""))]
    return content == told + _seal(told)


def _seal(told: bytes) -> bytes:
    return f',\n "digest": "{digest(told)}"'.encode() + END
