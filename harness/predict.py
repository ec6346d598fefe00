"""What a trained model says of images: its most likely classes and their probabilities.

RUN is a run's folder, a run id, or a file model.safetensors. Images may have any size and mode: the centre square is
resized to the model's size, what is transparent lies over white. Folders are searched at any depth. A file that is no
image is named and the others go on (exit code 1); where nothing can be predicted the exit code is 2.

examples:
  python -m harness.predict results/runs/RUN_ID photo.jpg
  python -m harness.predict RUN_ID photos/ more/cat.png --top 3
  python -m harness.predict model.safetensors photos/ --csv > predictions.csv     (a line for each image and rank)
  python -m harness.predict RUN_ID photos/ --json | jq -c .top[0]                 (an object a line for each image)
"""

import csv
import json
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from harness.commands import Parser, place, run_command, whole
from harness.data.folder import any_image, images_under
from harness.records.read import named_run
from variants.fields import UsageError

if TYPE_CHECKING:
    from torch import nn

BATCH = 64
Predicted = dict[str, Any]  # as --json prints it


def parser() -> Parser:
    p = Parser("harness.predict", __doc__ or "")
    p.add_argument("run", metavar="RUN", help="see above")
    p.add_argument("images", type=place, nargs="+", metavar="IMAGE_OR_FOLDER")
    p.add_argument("--top", type=whole, default=5, metavar="N", help="so many classes an image (default: 5)")
    how = p.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="an object a line for each image")
    how.add_argument("--csv", action="store_true", help="image, rank, class, probability")
    p.add_shared("device")
    return p


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    paths, problems = files_of(args.images), list[str]()
    from harness.training import device as devices
    from variants.weights import OfPixels, card_of, load

    source = named_run(args.run)
    device, card = devices.choose(args.device), card_of(source)
    model = OfPixels(load(source), card).to(device).eval()
    width = max(len(readably(path)) for path in paths)
    if args.csv:
        print("image,rank,class,probability")
    bar = tqdm(paths, unit="image", disable=None if len(paths) > BATCH else True, leave=False)
    images = readable(bar, card.config.image_size, problems)
    while batch := list(islice(images, BATCH)):
        with tqdm.external_write_mode():  # above the progress bar
            for found in predicted(model, card.classes, batch, args.top):
                show(found, args, width)
    if len(problems) == len(paths):
        raise UsageError("there is nothing to predict: none of these is an image")
    return 1 if problems else 0


def files_of(places: Iterable[Path]) -> list[Path]:
    """Each once, in the order in which they were named."""
    paths = [path for place in places for path in (images_under(place) if place.is_dir() else [place])]
    if not paths:
        raise UsageError(f"there is no image in {', '.join(map(str, places))}")
    return list(dict.fromkeys(paths))


def readable(paths: Iterable[Path], side: int, problems: list[str]) -> Iterator[tuple[Path, np.ndarray]]:
    """What cannot be read is told at once and joins the problems."""
    for path in paths:
        try:
            yield path, any_image(path, side)
        except UsageError as error:
            problems.append(str(error))
            tqdm.write(str(error), file=sys.stderr)


def predicted(
    model: "nn.Module", classes: Sequence[str], batch: Sequence[tuple[Path, np.ndarray]], most: int
) -> Iterator[Predicted]:
    import torch

    images = torch.from_numpy(np.stack([image for _, image in batch])).permute(0, 3, 1, 2).contiguous()
    with torch.inference_mode():
        probabilities_BK = model(images.to(next(model.parameters()).device) / 255).softmax(dim=1)
    values, labels = (x.cpu().tolist() for x in probabilities_BK.topk(min(most, len(classes))))
    for (path, _), own_values, own_labels in zip(batch, values, labels):
        top = [{"class": classes[label], "probability": value} for label, value in zip(own_labels, own_values)]
        yield {"image": readably(path), "top": top}


def readably(path: Path) -> str:
    """A file may have a name that no text can hold."""
    return str(path).encode(errors="replace").decode()


def show(found: Predicted, args: Namespace, width: int) -> None:
    """One image's prediction; `width` of the longest name."""
    if args.json:
        print(json.dumps(found))
    elif args.csv:
        rows = [(found["image"], rank, *one.values()) for rank, one in enumerate(found["top"], 1)]
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
    else:
        likely = "   ".join(f"{one['probability']:6.1%} {one['class']}" for one in found["top"])
        print(f"{found['image']:<{width}}  {likely}")


if __name__ == "__main__":
    run_command(main)
