"""The figures of harness.look: each function takes a subject and gives a figure's data and its drawing. All but one are
rows of small pictures."""

import base64
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.data.augment.mixing import mix_images
from harness.data.load import Split
from harness.data.pipeline import scaling, to_device, training_batches
from harness.evidence.cells import cell_of
from harness.evidence.figures import drawing
from harness.evidence.figures.cells import confusion_data, draw_confusion
from harness.evidence.figures.drawing import BLACK, BLUE, COLUMN_IN, GRAY, PAGE_IN, VERMILION, Looks, Plan, shortened
from harness.evidence.names import name_of
from harness.evidence.quality import predictions_of
from harness.looking.subject import Subject
from harness.records.write import write_atomically
from harness.training.setup import data_generator
from variants import maps
from variants.fields import UsageError

Data = dict[str, Any]
MOST_MAPS, MOST_POSITIONS = 12, 16  # along a side
MOST_FILTERS, MOST_COMPONENTS, SHIFTED_COMPONENTS = 48, 24, 12
AUGMENTED, VIEWS, MISTAKES = 4, 8, 18
SHIFTS = ["image", "right, down", "left, down", "right, up", "left, up"]


def write_figures(subject: Subject, folder: Path) -> Iterator[tuple[str, list[str] | str]]:
    """Each figure's name with its files, or with why there is none. A block or head asked for must be there."""
    subject.check_choice()
    for make in FIGURES:
        try:
            plan = make(subject)
            files = [folder / f"{plan.name}.{suffix}" for suffix in ("pdf", "png")]
            for path, content in zip(files, drawing.drawn(plan, {})):
                write_atomically(path, content)
            told = list(map(str, files))
        except UsageError as error:
            told = str(error)
        except OSError as error:
            raise UsageError(f"cannot write {error.filename or folder}: {error.strerror or error}") from None
        yield make.__name__.replace("_", "-"), told


# --- where it looks --------------------------------------------------------------------------------------------------


def attention(subject: Subject) -> Plan:
    """The heads of the chosen block, else every block: the chosen head of each, or the mean over its heads."""
    found, layout, block, head = subject.attention, subject.layout, subject.asked.block, subject.asked.head
    seen = [seen_by(maps.query_weights(one, layout), one, layout) for one in found]  # of each block B x heads x g x g
    if block:
        columns = {f"head {number}": of for number, of in enumerate(seen[block - 1].unbind(1), 1)}
        columns = {name: of for name, of in columns.items() if not head or name == f"head {head}"}
    else:
        columns = {f"block {n}": of[:, head - 1] if head else of.mean(1) for n, of in enumerate(seen, 1)}
    which = [f"{name} {number}" for name, number in (("block", block), ("head", head)) if number]
    asking = "from the class token to each patch" if layout.has_class_token else "to each patch, mean over all patches"
    told = f"Attention {asking}; {', '.join(which) or 'mean over heads'}."
    columns = {name: columns[name] for name in spread(list(columns), MOST_MAPS)}
    return over_images("-".join(["attention", *which]).replace(" ", ""), subject, told, columns)


def seen_by(weights_BN: torch.Tensor, map_BHNN: torch.Tensor, layout: maps.Layout) -> torch.Tensor:
    """B x H x grid x grid: the mean over queries of these weights."""
    return layout.on_patches((weights_BN[:, None, None] @ map_BHNN).squeeze(2))


def rollout(subject: Subject) -> Plan:
    """Read as the model reads its last tokens."""
    layout = subject.layout
    weights_BN = maps.query_weights(subject.attention[0], layout)
    asking = "the class token" if layout.has_class_token else "all patches alike"
    with contextlib.suppress(UsageError):
        weights_BN, asking = subject.pooling, "the patches by the weights of sequence pooling"
    seen = seen_by(weights_BN, maps.rollout(subject.attention)[:, None], layout).squeeze(1)
    told = f"Attention rollout through all blocks (Abnar and Zuidema 2020), read from {asking}."
    return over_images("rollout", subject, told, {"rollout": seen})


def pooling(subject: Subject) -> Plan:
    seen = maps.layout_of(subject.model, subject.pooling.shape[-1]).on_patches(subject.pooling)
    return over_images("pooling", subject, "Sequence pooling: the weight of each patch.", {"pooling": seen})


def over_images(name: str, subject: Subject, told: str, columns: dict[str, torch.Tensor]) -> Plan:
    """A row for each image; three images in a row where there is one map of each."""
    cells = []
    for image, text, *seen in zip(subject.images, subject.texts, *columns.values()):
        cells += [cell(image, text), *(cell(image) | {"map": one.tolist()} for one in seen)]
    heads = ["image", *columns] * (min(3, len(cells) // 2) if len(columns) == 1 else 1)
    bar = ["weight of a patch: 0", "largest of its map"]
    return pictures(name, subject, told, in_rows(cells, len(heads)), heads=heads, bar=bar)


def distance(subject: Subject) -> Plan:
    """One image at a time: the maps of many tokens are large."""
    layout, pixels, of_images = subject.layout, subject.images.shape[1] / subject.layout.grid, []
    for image in subject.images:
        found = subject.of("attention_maps", image[None])
        of_images.append(torch.cat([maps.mean_distance(one, layout, pixels) for one in found]))
    uniform = maps.mean_distance(torch.ones(1, 1, *subject.attention[0].shape[-2:]), layout, pixels).item()
    told = "Mean attention distance: how far each head looks, weighted by attention between patches."
    data = {"caption": f"{subject.title}. {told}", "uniform": uniform, "lines": torch.stack(of_images).mean(0).tolist()}
    return Plan("distance", data, draw_distance, "")


# --- what it has learned ---------------------------------------------------------------------------------------------


def positions(subject: Subject) -> Plan:
    similarity_PP = maps.position_similarity(subject.model)
    grid = round(len(similarity_PP) ** 0.5)
    chosen = spread(range(grid), MOST_POSITIONS)
    rows = similarity_PP.view(grid, grid, grid, grid)[chosen][:, chosen].tolist()
    told = "Cosine similarity of the position embedding of each patch, at its place, with those of all patches."
    data = {"caption": f"{subject.title}. {told}", "rows": rows, "chosen": chosen}
    return Plan("positions", data, draw_positions, "")


def filters(subject: Subject) -> Plan:
    """Of patches, which are a linear map of pixels, principal components: single filters look like noise."""
    found, cuts_patches = maps.first_filters(subject.model)
    kind, most = f"The {len(found)} filters of the first convolution", MOST_FILTERS
    if cuts_patches:
        kind = f"Principal components of the {len(found)} patch filters"
        found = torch.linalg.svd(found.flatten(1), full_matrices=False).Vh.unflatten(1, found.shape[1:])
        most = SHIFTED_COMPONENTS if len(found[0]) > 1 else MOST_COMPONENTS
    else:
        found = found[found.flatten(1).norm(dim=1).argsort(descending=True)]
    largest = found[:most].flatten(1).abs().amax(1).clamp_min(1e-12).view(-1, 1, 1, 1, 1)
    cells = [cell(one) for one in as_pixels((0.5 + found[:most] / (2 * largest)).flatten(0, 1))]
    height, width = found.shape[-2:]
    told = f"{kind}, {height} x {width} pixels, largest first; grey is 0, each scaled by itself."
    shifted = len(found[0]) > 1
    return pictures("filters", subject, told, in_rows(cells, 10 if shifted else 12), heads=SHIFTS * 2 * shifted)


# --- what it was shown, and what it says -----------------------------------------------------------------------------


def augmented(subject: Subject) -> Plan:
    """Each image several times through the run's own pipeline, as in its first epoch; labels tell them apart."""
    (_, config), (data, train, _) = subject.run, subject.splits
    if not config.recipe.augment and config.recipe.mix == "none":
        raise UsageError(f"recipe {config.recipe_name} changes no image")
    images = np.asarray(train.images[:AUGMENTED])
    views = Split(np.repeat(images, VIEWS, axis=0), np.repeat(np.arange(len(images)), VIEWS))
    device, recipe = torch.device("cpu"), replace(config.recipe, batch_size=len(views))
    scale, generator = scaling(data, recipe, device), data_generator(config.seed, 0)
    (batch,) = training_batches(to_device(views, device), recipe, scale, generator)
    seen = mix_images(scale(batch.images), batch.mix) if batch.mix else scale(batch.images)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in subject.scale)
    pixels, labels = as_pixels(seen * std + mean), batch.labels.numpy()
    rows = [[cell(one) for one in (image, *pixels[labels == number])] for number, image in enumerate(images)]
    mixed = " and mixed with each other" if batch.mix else ""
    told = f"Training images, and what the model sees of them: augmented{mixed}."
    return pictures("augmented", subject, told, rows, heads=["image"])


def confusion(subject: Subject) -> Plan:
    """Drawn as in a report, with the names of the classes."""
    run, _ = subject.run
    data = confusion_data([of := cell_of([run], name_of(run.config))], of.dataset)
    if not data["panels"]:
        raise UsageError("the record has no predictions that can be used")
    return Plan("confusion", data | {"names": list(subject.classes)}, draw_confusion, "")


def mistakes(subject: Subject) -> Plan:
    (found, why), (_, _, judged) = predictions_of(subject.run[0]), subject.splits
    if found is None or not np.array_equal(found["labels"], judged.labels):
        raise UsageError(why or "the images here are not those that it was judged on")
    wrong_N = found["predicted"] != found["labels"]
    wrong = np.argsort(np.where(wrong_N, -found["confidence"], 1), kind="stable")[: min(wrong_N.sum(), MISTAKES)]
    if not wrong.size:
        raise UsageError("it made none")
    said = zip(*(found[part][wrong].tolist() for part in ("labels", "predicted", "confidence")))
    cells = [answered(subject, judged.images[i], subject.classes[k], *rest) for i, (k, *rest) in zip(wrong, said)]
    of = f"its {wrong_N.sum():,} mistakes on {len(judged):,} images"
    return pictures("mistakes", subject, f"Most confident of {of}: class, → prediction, confidence.", in_rows(cells, 6))


def contact_sheet(subject: Subject) -> Plan:
    is_known = bool(subject.run) and not subject.asked.images  # else the texts are names of files
    logits = subject.of("forward", subject.images)
    confidence, predicted = (of.tolist() for of in logits.softmax(-1).max(-1))
    said = zip(subject.images, subject.texts, predicted, confidence)
    cells = [answered(subject, *one, is_known) for one in said]
    wrong = f"; {sum(one['color'] == VERMILION for one in cells)} of {len(cells)} wrong, coloured" if is_known else ""
    told = f"Images: {'class' if is_known else 'file'}, → prediction, confidence{wrong}."
    return pictures("contact-sheet", subject, told, in_rows(cells, 6))


def answered(subject: Subject, image: np.ndarray, text: str, label: int, sure: float, is_known: bool = True) -> Data:
    said = subject.classes[label]
    return cell(image, f"{text}\n→ {said}, {100 * sure:.0f} %", VERMILION if is_known and said != text else BLACK)


FIGURES = attention, rollout, pooling, distance, positions, filters, augmented, confusion, mistakes, contact_sheet


# --- rows of pictures ------------------------------------------------------------------------------------------------

SIDE_IN, GAP_IN, LINE_IN = 1.0, 0.07, 0.13
BAR_IN = 1.2, 0.24  # width, and what the figure grows by
SMALL, SIGNS_AN_INCH = 7, 19
MAP = "inferno"


def cell(picture: np.ndarray, text: str = "", color: str = BLACK) -> Data:
    """A picture H x W x 3 uint8, and what stands below it; "map" is added where one lies over it."""
    shape, content = list(picture.shape), base64.b64encode(picture.tobytes()).decode()
    return {"shape": shape, "base64": content, "text": text, "color": color}


def as_pixels(images_BCHW: torch.Tensor) -> np.ndarray:
    """Of values in [0, 1]."""
    return (255 * images_BCHW).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def in_rows(cells: Sequence[Data], across: int) -> list[Sequence[Data]]:
    return [cells[first : first + across] for first in range(0, len(cells), across)]


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """So many of them, evenly, with the first and the last."""
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, min(most, len(items)))]


def pictures(name: str, subject: Subject, told: str, rows: Sequence[Sequence[Data]], **more: list[str]) -> Plan:
    return Plan(name, {"caption": f"{subject.title}. {told}", "rows": rows, **more}, draw_pictures, "")


def draw_pictures(data: Data, looks: Looks) -> Figure:
    """All in one pair of axes that measures inches from the upper left: axes for each picture would take seconds."""
    rows, heads, bar = data["rows"], data.get("heads", []), data.get("bar", [])
    across = max(map(len, rows))
    side = min(SIDE_IN, (PAGE_IN - GAP_IN) / across - GAP_IN)
    width = PAGE_IN if across * (side + GAP_IN) + GAP_IN > COLUMN_IN else COLUMN_IN
    caption = wrap(data["caption"], int(SIGNS_AN_INCH * (width - 2 * GAP_IN)))
    below = LINE_IN * max(len(one["text"].splitlines()) for row in rows for one in row)
    left, top = (width - across * (side + GAP_IN) + GAP_IN) / 2, 2 * GAP_IN + LINE_IN * (len(caption) + bool(heads))
    height = top + (side + GAP_IN + below) * len(rows) + BAR_IN[1] * bool(bar)
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("none")
    figure.suppressComposite = True  # a PDF would count the transparency of maps twice
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    centred: Data = {"ha": "center", "fontsize": SMALL}
    axes.text(width / 2, GAP_IN, "\n".join(caption), va="top", **centred)
    for column, head in enumerate(heads):
        axes.text(left + column * (side + GAP_IN) + side / 2, top - 0.03, head, va="bottom", **centred)
    for place, row in enumerate(rows):
        for column, one in enumerate(row):
            draw_cell(axes, one, left + column * (side + GAP_IN), top + place * (side + GAP_IN + below), side)
    if bar:
        place = figure.add_axes(((width - BAR_IN[0]) / 2 / width, 0.08 / height, BAR_IN[0] / width, 0.08 / height))
        figure.colorbar(ScalarMappable(Normalize(0, 1), MAP), cax=place, orientation="horizontal", ticks=[])
        for text, x, ha in zip(bar, (-0.03, 1.03), ("right", "left")):
            place.text(x, 0.45, text, ha=ha, va="center", transform=place.transAxes, fontsize=SMALL)
    return figure


def draw_cell(axes: Any, one: Data, x: float, y: float, side: float) -> None:
    picture = np.frombuffer(base64.b64decode(one["base64"]), np.uint8).reshape(one["shape"])
    place: Data = {"extent": (x, x + side, y + side, y), "aspect": "auto"}
    if "map" in one:
        weights = np.array(one["map"])
        axes.imshow(picture.mean(-1), cmap="gray", vmin=-64, vmax=319, **place)  # pale: white would hide the colours
        axes.imshow(weights, cmap=MAP, alpha=0.7, vmin=0, vmax=weights.max() or 1, interpolation="nearest", **place)
    else:
        axes.imshow(picture, **place)
    text = "\n".join(shortened(line, int(SIGNS_AN_INCH * (side + GAP_IN))) for line in one["text"].splitlines())
    at = x + side / 2, y + side + 0.03
    axes.text(*at, text, color=one["color"], ha="center", va="top", fontsize=6.5, linespacing=1.1)


# --- other figures ---------------------------------------------------------------------------------------------------


def captioned(data: Data, height_in: float) -> tuple[Figure, Any]:
    figure, (axes,) = drawing.panels(1, 1, (COLUMN_IN, height_in))
    figure.suptitle("\n".join(wrap(data["caption"], int(SIGNS_AN_INCH * COLUMN_IN))), fontsize=SMALL)
    return figure, axes


def draw_distance(data: Data, looks: Looks) -> Figure:
    figure, axes = captioned(data, 2.5)
    blocks = range(1, len(data["lines"]) + 1)
    points: Data = {"linestyle": "none", "marker": "o", "markersize": 4, "markeredgewidth": 0, "alpha": 0.6}
    head, *_ = axes.plot(blocks, data["lines"], color=BLUE, **points)
    (mean,) = axes.plot(blocks, np.mean(data["lines"], axis=1), color=BLACK, linewidth=0.8)
    uniform = axes.axhline(data["uniform"], color=GRAY, linewidth=0.8, linestyle="--")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    most = max(data["uniform"], np.max(data["lines"]))
    axes.set(xlabel="block", ylabel="distance (pixels)", ylim=(0, 1.1 * most), xlim=(0.5, len(blocks) + 0.5))
    drawing.add_legend(figure, [head, mean, uniform], ["head", "mean", "uniform"])
    return figure


def draw_positions(data: Data, looks: Looks) -> Figure:
    """A grid of grids. Colours end at the largest similarity of two patches: each with itself has 1."""
    chosen, maps_RCgg = data["chosen"], np.array(data["rows"])
    others = maps_RCgg[maps_RCgg < 1 - 1e-5]
    fine = -(-24 // maps_RCgg.shape[-1])  # squares a patch, so that gaps are narrow
    padded = np.pad(np.kron(maps_RCgg, np.ones((fine, fine))), ((0, 0), (0, 0), (0, 3), (0, 3)), constant_values=np.nan)
    step = padded.shape[-1]
    figure, axes = captioned(data, 3.2)
    mosaic = padded.swapaxes(1, 2).reshape(len(chosen) * step, -1)[:-3, :-3]
    limits = {"vmin": others.min(initial=1), "vmax": others.max(initial=-1)} if others.size else {}
    shown = axes.imshow(mosaic, cmap="viridis", interpolation="nearest", **limits)
    ticks = [(place * step + (step - 4) / 2, str(number + 1)) for place, number in enumerate(chosen)]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(*zip(*ticks[:: -(-len(ticks) // 8)]))
    axes.set(xlabel="column of the patch", ylabel="row of the patch")
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    figure.colorbar(shown, ax=axes, extend="max", shrink=0.8).set_label("cosine similarity", fontsize=8)
    return figure
