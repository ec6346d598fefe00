"""From a data set to batches ready for the model: onto the device, shuffled, augmented, scaled, mixed. All is drawn on
the host, in a fixed order, from the generator that is given."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from harness.data.augment import transfer
from harness.data.augment.mixing import Mix, draw_mix_values, mix_of
from harness.data.augment.steps import Step, augment_uint8_, drawn_for, float_steps
from harness.data.load import ImageData, Split
from harness.data.resident import HostImages
from harness.recipes import Recipe
from variants.fields import UsageError

CHUNK_BYTES = 24 * 2**20  # augmented at once: 8192 images of 32 pixels; a fixed number, since it shapes the draws


@dataclass(frozen=True)
class DeviceSplit:
    """One split as the device has it: images B x 3 x H x W uint8, or those that the host keeps for it; labels int64."""

    images: Any  # a tensor, or HostImages
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def in_turn(self, wanted: Iterable[slice | np.ndarray]) -> Iterator[torch.Tensor]:
        """The images of these rows, then of those; what the host keeps is read ahead."""
        if isinstance(self.images, HostImages):
            yield from self.images.in_turn(wanted)
            return
        for rows in wanted:
            if isinstance(rows, slice):
                yield self.images[rows]
            else:
                yield self.images.index_select(0, transfer.to_device(rows, self.labels.device))


@dataclass(frozen=True)
class Batch:
    """A batch or a part of one. The parts' mean losses, times their weights, add up to the whole one's."""

    images: torch.Tensor  # uint8, or float and scaled where a step of the recipe needs them so
    labels: torch.Tensor
    mix: Mix | None
    partners: int = 0  # images in front that are only there for mixing: 1 where a part's first image needs it
    weight: float = 1.0

    def __len__(self) -> int:
        return self.labels.shape[-1] - self.partners

    def parts(self, count: int) -> "list[Batch]":
        """In order; fewer where there are fewer images."""
        if count == 1:
            return [self]
        whole = self if self.mix is None or self.partners else self._led_by_last()
        return [whole._part(start, end) for start, end in pairwise(cuts(len(self), count)) if start < end]

    def _led_by_last(self) -> "Batch":
        """The image with which the first is mixed."""
        last = len(self) - 1
        return replace(self._each(lambda own, dim: torch.cat([own.narrow(dim, last, 1), own], dim)), partners=1)

    def _part(self, start: int, end: int) -> "Batch":
        part = self._each(lambda own, dim: own.narrow(dim, start, end - start + self.partners))
        return replace(part, weight=self.weight * (end - start) / len(self))

    def _each(self, change: Callable[[torch.Tensor, int], torch.Tensor]) -> "Batch":
        """All tensors changed along their images, before which there may be a dimension of seeds."""
        dim = self.labels.ndim - 1
        mix = Mix(*(change(own, dim) for own in self.mix)) if self.mix else None
        return replace(self, images=change(self.images, dim), labels=change(self.labels, dim), mix=mix)


def cuts(count: int, parts: int) -> list[int]:
    """Where so many images are cut into parts as equal as can be, both ends included."""
    return [count * nth // parts for nth in range(parts + 1)]


class Share(NamedTuple):
    """Of every batch, for one of several processes whose gradients are averaged."""

    rank: int = 0
    of: int = 1

    def part(self, count: int, is_mixed: bool) -> "Part":
        """Where there are fewer images than processes, some have one that does not count."""
        start, end = cuts(count, self.of)[self.rank : self.rank + 2]
        partners = int(is_mixed and self.of > 1)
        rows = np.arange(start - partners, max(end, start + 1)) % count
        return Part(count, rows, partners, self.of * (end - start) / count)


WHOLE = Share()


class Part(NamedTuple):
    """A process's images of a batch."""

    whole: int  # images in the batch
    rows: np.ndarray  # which of them
    partners: int  # as Batch has them
    weight: float


@dataclass(frozen=True)
class Scaling:
    """uint8 pixels -> what the model sees, as one multiplication and one addition a channel. Floats are scaled."""

    factor_CHW: torch.Tensor  # one value a channel, written out: broadcast over pixels, a CPU takes three times as long
    shift_CHW: torch.Tensor
    mean_C11: torch.Tensor  # the data set's mean colour in [0, 1], whatever the scaling

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        if images.is_floating_point():
            return images
        values = images.to(torch.float32)
        return torch.addcmul(self.shift_CHW, values, self.factor_CHW, out=values)


def mean_and_std(data: ImageData, recipe: Recipe) -> tuple[tuple[float, ...], tuple[float, ...]]:
    means_stds = {"dataset": (data.mean, data.std), "half": ((0.5,) * 3, (0.5,) * 3), "unit": ((0.0,) * 3, (1.0,) * 3)}
    return means_stds[recipe.scaling]


def scaling(data: ImageData, recipe: Recipe, device: torch.device) -> Scaling:
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in mean_and_std(data, recipe))
    side, colour = data.dataset.image_size, torch.tensor(data.mean).view(3, 1, 1)
    whole = (x.float().reshape(3, 1, 1).expand(3, side, side).contiguous() for x in (1 / (255 * std), -mean / std))
    return Scaling(*(x.to(device) for x in (*whole, colour)))


def to_device(split: Split, device: torch.device, resident: str = "device") -> DeviceSplit:
    """`resident`: where the images are kept; see `residency`."""
    try:
        labels = torch.from_numpy(split.labels).to(device)
        if resident != "device":
            return DeviceSplit(HostImages(split.images, device, is_stream=resident == "stream"), labels)
        images = torch.from_numpy(np.asarray(split.images)).to(device).permute(0, 3, 1, 2).contiguous()
        return DeviceSplit(images, labels)
    except (torch.OutOfMemoryError, MemoryError):
        raise UsageError(
            f"too little memory on {device} for the data set: {len(split):,} images take "
            f"{split.images.nbytes / 1e9:.2f} GB, twice for a while\n"
            f"end what else runs there, or try --resident host, --resident stream for a folder, smaller images "
            f"(folder:PATH@32) or --device cpu"
        ) from None


def held_out(train: Split, share: float) -> tuple[Split, Split]:
    """(train, validation): the first images in canonical order are a fixed and arbitrary choice, the same for all."""
    count = held_out_count(len(train), share)
    return train.part(slice(count, None)), train.part(slice(count))


def held_out_count(images: int, share: float) -> int:
    count = round(images * share)
    if not 0 < count < images:
        raise UsageError(f"holdout={share}: leaves {images - count} training images and holds out {count}")
    return count


def shown_more_often(train: Split, share: float) -> Split:
    """A share of each class, repeated until an epoch has as many images as before: only their variety changes.

    The first images of a class in canonical order: arbitrary, the same for every seed, a smaller share within a larger.
    """
    if share == 1:
        return train
    chosen = np.zeros(len(train), bool)
    for label in np.unique(train.labels):
        of_class = np.flatnonzero(train.labels == label)
        chosen[of_class[: max(1, round(share * len(of_class)))]] = True
    return train.part(np.resize(np.flatnonzero(chosen), len(train)))


def training_batches(
    split: DeviceSplit, recipe: Recipe, scale: Scaling, *rngs: np.random.Generator, share: Share = WHOLE, done: int = 0
) -> Iterator[Batch]:
    """One epoch: every image once, the last batch as short as it comes out. With a generator for each of several seeds
    batches are stacked: each seed's part is the batch that it has by itself. The first `done` batches are left out."""
    steps = float_steps(recipe.augment)
    chunks_done, rest = divmod(done, batches_a_chunk(split, recipe))
    of_seeds = (_chunks(split, recipe, steps, rng, share, chunks_done) for rng in rngs)
    return islice(_batches(zip(*of_seeds, strict=True), steps, recipe, scale), rest, None)


def batches_a_chunk(split: DeviceSplit, recipe: Recipe) -> int:
    return max(1, CHUNK_BYTES // math.prod(split.images.shape[1:]) // recipe.batch_size)


def _batches(
    of_seeds: "Iterable[tuple[_Chunk, ...]]", steps: Sequence[Step], recipe: Recipe, scale: Scaling
) -> Iterator[Batch]:
    for chunks in of_seeds:
        end = 0
        for i, part in enumerate(chunks[0].parts):
            own = slice(end, end := end + len(part.rows))
            images = [chunk.images[own] for chunk in chunks]
            for nth, step in enumerate(steps):
                with_draws = zip(images, (chunk.drawn[nth][i] for chunk in chunks))
                images = [step.apply(scale(x), draws, recipe, scale.mean_C11) for x, draws in with_draws]
            mixes = zip(*(chunk.mix for chunk in chunks if chunk.mix))
            mix = [_joined([values[own] for values in of_seeds]) for of_seeds in mixes]
            labels = _joined([chunk.labels[own] for chunk in chunks])
            yield Batch(_joined(images), labels, Mix(*mix) if mix else None, part.partners, part.weight)


class _Chunk(NamedTuple):
    """Images augmented at once, and what their batches need besides: see draw_batches."""

    parts: list[Part]
    images: torch.Tensor
    labels: torch.Tensor
    drawn: list[list[Any]]
    mix: Mix | None


def _chunks(
    split: DeviceSplit, recipe: Recipe, steps: Sequence[Step], rng: np.random.Generator, share: Share, done: int
) -> Iterator[_Chunk]:
    """Of one seed's epoch, without those that are done. Every process draws for all images and augments its own."""
    order = rng.permutation(len(split))
    chunk, device = batches_a_chunk(split, recipe) * recipe.batch_size, split.labels.device
    starts = range(0, len(order), chunk)
    of_chunks = [_parts(min(chunk, len(order) - start), recipe, share) for start in starts]
    for parts, rows in of_chunks[:done]:  # for the draws' sake
        augment_uint8_(split.images[:0], recipe.augment, recipe, rng, rows[:0], sum(part.whole for part in parts))
        draw_batches(parts, steps, recipe, split, rng)
    wanted = [order[start:][rows] for start, (_, rows) in zip(starts, of_chunks)][done:]
    for (parts, rows), chosen, images in zip(of_chunks[done:], wanted, split.in_turn(wanted)):
        count = sum(part.whole for part in parts)
        images = augment_uint8_(images, recipe.augment, recipe, rng, rows, count)
        drawn, mix = draw_batches(parts, steps, recipe, split, rng)
        labels = split.labels.index_select(0, transfer.to_device(chosen, device))
        yield _Chunk(parts, images, labels, drawn, mix)


def _parts(count: int, recipe: Recipe, share: Share) -> tuple[list[Part], np.ndarray]:
    """This process's part of each batch of a chunk, and which of its images these are."""
    firsts = range(0, count, recipe.batch_size)
    parts = [share.part(min(recipe.batch_size, count - first), recipe.mix != "none") for first in firsts]
    return parts, np.concatenate([first + part.rows for first, part in zip(firsts, parts)])


def _joined(of_seeds: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(of_seeds)) if len(of_seeds) > 1 else of_seeds[0]


def draw_batches(
    parts: Sequence[Part], steps: Sequence[Step], recipe: Recipe, split: DeviceSplit, rng: np.random.Generator
) -> tuple[list[list[Any]], Mix | None]:
    """What a chunk's batches need besides their images, on the device: for each float step the draws of all batches,
    and how all images are mixed. Drawn batch by batch, as if each were drawn when its turn comes, but worked out and
    sent once: both cost as much for one batch as for all."""
    height, width = split.images.shape[2:]
    of_steps, mixes = [[] for _ in steps], []
    for part in parts:
        for step, draws in zip(steps, of_steps, strict=True):
            draws.append(drawn_for(part.rows, step.draw(part.whole, height, width, recipe, rng)))
        if recipe.mix != "none":
            mixes.append(draw_mix_values(part.whole, height, width, recipe, rng))
    device = split.labels.device
    mix = None
    if mixes:
        whole = mix_of(mixes, [part.whole for part in parts], height, width, recipe)
        first = np.cumsum([0, *(part.whole for part in parts)])
        rows = np.concatenate([at + part.rows for at, part in zip(first, parts)])
        mix = Mix(*(own[rows] for own in whole)).to(device)
    return [transfer.sent_together(draws, device) for draws in of_steps], mix
