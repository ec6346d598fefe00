"""Owns the rule that nothing inside a data set's folder leads out of it; the folder itself may lie anywhere.
Refuses links that leave it, or lead nowhere, by name.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from variants.fields import UsageError


def check_links(folder: Path) -> None:
    """`data/` or `data/c10` as a link to another disk is how people live; an image that is a link to a file of somebody
    else is none of this data set."""
    home = folder.resolve()
    for link in _links(folder):
        target = Path(os.path.realpath(link))
        if not target.is_relative_to(home):
            raise UsageError(
                f"{link} leads out of {folder}, to {target}; only the data set's folder itself may be a link\n"
                f"put the file there (cp -rL follows links), or link the whole folder"
            )
        if not target.exists():
            raise UsageError(f"{link} is a link to {target}, where nothing is")


def _links(folder: Path) -> Iterator[str]:
    return (entry.path for entry in entries_below(folder) if entry.is_symlink())


def entries_below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """All below it, however deep: folders may lie in each other deeper than calls can. Links are not entered."""
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:  # it knows links without a look at each of a million files
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
