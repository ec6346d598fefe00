"""Owns how a contrast is told: lines to read, and plain data for --json.
Refuses to compute.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from harness.datasets import title
from harness.evidence.cells.contrast import Contrast, Differing, ImagePair, Mean, SideFacts
from harness.evidence.cells.groups import count
from harness.evidence.writing import HOLE, difference, minutes, signed, whole
from harness.statistics.power import MOST_SEEDS, WANTED

MOST_CLASSES = 10


def to_plain(found: Contrast) -> dict[str, Any]:
    plain = dataclasses.asdict(found)
    for row in plain["classes"]:
        row["difference"] = row["b"] - row["a"]
    return plain


def lines_of(found: Contrast) -> list[str]:
    lines = [
        f"{title(found.dataset)}, {found.split} images",
        *(f"{name}: {', '.join(side.run_ids)}\n   {side.label}{_failed(side)}" for name, side in _sides(found)),
        "",
        *_block("differs in the config (A -> B)", [_change(row) for row in found.config], "nothing"),
    ]
    if found.made_with:
        lines += _block("was made with (A -> B)", [_change(row) for row in found.made_with])
    lines += _block("mean ± half-width of the 95% t-interval (number of runs)", _numbers(found))
    lines += _block("accuracy, B - A, paired by seed (points)", _difference(found))
    if found.images:
        lines += _block(
            "image by image: about these trained models, not about their recipes",
            [line for pair in found.images for line in _images(pair)],
        )
        lines += _block(f"accuracy by class (%), largest difference first{_left_out(found)}", _classes(found))
    if found.remarks:
        lines += _block("not compared", found.remarks)
    return lines[:-1]


def _sides(found: Contrast) -> tuple[tuple[str, SideFacts], tuple[str, SideFacts]]:
    return ("A", found.a), ("B", found.b)


def _failed(side: SideFacts) -> str:
    return f"; {side.failed} failed, left out" if side.failed else ""


def _block(head: str, lines: Sequence[str], otherwise: str = HOLE) -> list[str]:
    return [head, *(f"  {line}" for line in lines or [otherwise]), ""]


def _change(row: Differing) -> str:
    a, b = (", ".join(map(_short, values)) if values else HOLE for values in (row.a, row.b))
    return f"{row.field}: {a} -> {b}"


def _short(value: Any) -> str:
    """A digest is told apart by its beginning."""
    text = str(value)
    return text[:12] if len(text) == 64 else text


# --- means and costs -------------------------------------------------------------------------------------------------


def _numbers(found: Contrast) -> list[str]:
    rows = [["", "A", "B"]]
    rows.append(["accuracy (%)", *(_spread(side.accuracy) for _, side in _sides(found))])
    rows.append(["NLL", *(_spread(side.nll, ".4f") for _, side in _sides(found))])
    rows.append(["calibration error (%)", *(_spread(side.calibration_error) for _, side in _sides(found))])
    rows.append(["parameters", *(whole(side.params) for _, side in _sides(found))])
    rows.append(["MACs an image", *(whole(side.macs) for _, side in _sides(found))])
    rows.append(["minutes of training", *(_minutes(side) for _, side in _sides(found))])
    return aligned(rows)


def _spread(value: Mean | None, form: str = ".2f") -> str:
    if value is None:
        return HOLE
    half = "" if value.half is None else f" ± {value.half:{form}}"
    return f"{value.mean:{form}}{half} ({value.n})"


def _minutes(side: SideFacts) -> str:
    return HOLE if side.train_minutes is None else f"{minutes(side.train_minutes.mean)} on {side.device}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


# --- the difference --------------------------------------------------------------------------------------------------


def _difference(found: Contrast) -> list[str]:
    d = found.difference
    dropped = [f"left out, because on one side alone: {count(d.dropped, 'seed')}"] if d.dropped else []
    if d.mean is None:
        return ["undecided: no seed is on both sides", *dropped]
    lines = [f"{difference(d.mean, d.half)} (n = {d.n}), {_verdict(found)}"]
    if d.sign_flip_p is not None and d.smallest_sign_flip_p is not None:
        lines.append(
            f"sign-flip p {_p(d.sign_flip_p)}; the smallest that {d.n} pairs allow: {d.smallest_sign_flip_p:.4g}"
        )
    return [*lines, *dropped, *_resolving(found)]


def _verdict(found: Contrast) -> str:
    """Undecided where there is no p: one pair, or differences that all equal something else than 0."""
    p = found.difference.t_p
    return "undecided" if p is None else f"paired t: p {_p(p)}"


def _resolving(found: Contrast) -> list[str]:
    d, seeds = found.difference, found.seeds_to_resolve
    if not d.mean or not d.spread:
        return []
    wanted = f"{seeds} seeds" if seeds else f"more than {MOST_SEEDS:,} seeds"
    return [f"if this is the true difference, {100 * WANTED:.0f} % power needs {wanted} (spread {d.spread:.2f})"]


def _p(p: float) -> str:
    if p < 1e-300:  # where floating point ends
        return "< 1e-300"
    return f"= {p:.2g}" if p >= 1e-4 else f"= {p:.0e}"


# --- images ----------------------------------------------------------------------------------------------------------


def _images(pair: ImagePair) -> list[str]:
    seeds = f"seed {pair.seed_a}" if pair.seed_a == pair.seed_b else f"seed {pair.seed_a} against {pair.seed_b}"
    counts, (low, high) = pair.counts, pair.interval
    return [
        f"{seeds}: both right {counts.both:,}, only A {counts.only_first:,}, only B {counts.only_second:,}, "
        f"both wrong {counts.neither:,}",
        f"  B - A {signed(pair.difference)} points, 95% over images {signed(low)} to {signed(high)}; "
        f"McNemar p {_p(pair.mcnemar_p)}",
    ]


def _left_out(found: Contrast) -> str:
    classes = len(found.classes)
    return f", {MOST_CLASSES} of {classes} classes" if classes > MOST_CLASSES else ""


def _classes(found: Contrast) -> list[str]:
    rows = [["class", "A", "B", "B - A"]]
    for row in found.classes[:MOST_CLASSES]:
        rows.append([str(row.label), f"{row.a:.2f}", f"{row.b:.2f}", signed(row.difference)])
    return aligned(rows)
