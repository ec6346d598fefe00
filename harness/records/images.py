"""Owns whether a finished run was made of the images that lie there now.
Refuses to ask where the data set's name already says it: only what is in a folder of images can be anything.
"""

from pathlib import Path

from harness.data.load import load
from harness.records.read import Run
from variants.fields import UsageError

FOLDER = "folder:"


def check_images(run: Run, dataset: str, data_dir: Path) -> None:
    """Two folders of one name give runs of one name."""
    if dataset.startswith(FOLDER) and load(dataset, data_dir).digest != run.env.get("data_digest"):
        raise UsageError(
            f"{run.folder} was made of other images, those of {run.config['dataset']} as it was then: "
            "rename the folder of images, choose another --out, or train it again with --fresh"
        )
