"""The page of all results as one HTML file: plain tables that can be read without JavaScript, and beside them the data
and the scripts that sort, filter and draw. It asks nothing of the network, and its policy forbids it."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from harness.datasets import title
from harness.evidence.again import run_command_of, study_command_of, sweep_command_of
from harness.evidence.captions import conclusions, made_with
from harness.evidence.cells import Cell, Evidence, device_of
from harness.evidence.findings import Finding, changes_text
from harness.evidence.page.contents import Place, contents, origin_of, origins_of, places_of
from harness.evidence.published import SOURCES, Pair, compared, deviations
from harness.evidence.quality import finite
from harness.evidence.tables.results import accuracy, devices_of
from harness.evidence.tables.study import study_tables
from harness.evidence.writing import (
    HOLE,
    Columns,
    Table,
    escape_html,
    mean_minutes,
    scaled,
    sentences,
    signed,
    spread,
    whole,
)
from harness.records.read import Run
from harness.statistics.intervals import LEVEL
from harness.studies import STUDIES
from harness.study import Study

HERE = Path(__file__).parent
SCRIPTS = ("charts.js", "page.js")


def page(evidence: Evidence, shown: str, found: Sequence[Finding], tables: Sequence[Table]) -> str:
    """`shown`: the study whose rows are planned. `tables`: the report's, of which the page shows some as they are."""
    study = STUDIES[shown]
    places, named = places_of(evidence, study), {table.name: table for table in tables}
    pairs = compared(evidence.cells)
    data = contents(evidence, places, pairs, found)
    at = {(*place.row, title(place.dataset)): fact for fact, place in enumerate(places)}
    style, script = (HERE / "page.css").read_text(), "\n".join((HERE / name).read_text() for name in SCRIPTS)
    of_published = [line["of"] for line in data["published"]]
    sections = {
        "leaderboard": ("Leaderboard", _leaderboard(places, shown, study)),
        "published": ("Published and reproduced", _published(pairs, of_published)),
        "studies": ("Studies", "\n".join(map(_study, found, count())) or "<p>No study has been run yet.</p>"),
        "curves": ("Curves", ""),
        "costs": ("Accuracy against cost", _shown(named, COSTS, at)),
        "quality": ("Quality", _shown(named, QUALITY, at)),
        "runs": ("Runs", _runs(places)),
    }
    links = "".join(f'<a href="#{name}">{escape_html(head)}</a>' for name, (head, _) in sections.items())
    body = "\n".join(
        f'<section id="{name}">\n<h2>{escape_html(head)}</h2>\n<div class="drawn"></div>\n{inside}\n</section>'
        for name, (head, inside) in sections.items()
    )
    policy = f"default-src 'none'; img-src data: blob:; style-src {_digest(style)}; script-src {_digest(script)}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>What makes a small Vision Transformer work?</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>What makes a small Vision Transformer work?</h1>
<p>{escape_html(sentences(evidence.source, made_with(evidence.cells, "n", "epochs", "images")))}</p>
<nav aria-label="Parts of this page">{links}</nav>
</header>
<noscript><p>Without JavaScript there are no charts, filters and sorting; all tables are here.</p></noscript>
<main>
{body}
</main>
<footer>written by python -m harness.report --html, not by hand</footer>
<script type="application/json" id="contents">{_embedded(data)}</script>
<script>{script}</script>
</body>
</html>
"""


# --- the tables ------------------------------------------------------------------------------------------------------


def _html(table: Table, facts: Sequence[int] = ()) -> str:
    """`facts`: by which each of its rows is filtered."""
    return f'<div class="wide">{table.to_html(facts)}</div>'


COSTS = {"cost": "What a variant costs"}
QUALITY = {
    "calibration": "Calibration",
    "robustness": "Corrupted images",
    "selection-bias": "The best test epoch against the last",
    "targets": "How soon an accuracy is reached",
}


def _shown(tables: Mapping[str, Table], heads: Mapping[str, str], at: Mapping[tuple[str, ...], int]) -> str:
    """Each below its head; filtered where its rows are cells."""
    shown = [(head, tables[name]) for name, head in heads.items() if name in tables and tables[name].rows]
    facts = [[at[row[:3]] for row in table.rows if row[:3] in at] for _, table in shown]
    return "\n".join(
        f"<h3>{escape_html(head)}</h3>\n{_html(table, own if len(own) == len(table.rows) else ())}"
        for (head, table), own in zip(shown, facts)
    )


def _leaderboard(places: Sequence[Place], study_name: str, study: Study) -> str:
    def seeds(place: Place) -> str:
        n = len(place.cell.accuracies) if place.cell else 0
        failed = f", {len(place.cell.failed)} failed" if place.cell and place.cell.failed else ""
        return f"{n} of {len(study.seeds)}{failed}" if place.planned else f"{n}{failed}"

    def lacking(place: Place) -> str:
        n = len(place.cell.accuracies) if place.cell else 0
        if place.planned is None or n >= len(study.seeds):
            return ""
        return sweep_command_of(study_name, place.planned, place.dataset, place.cell)

    columns: Columns[Place] = {
        "variant": lambda place: place.row[0],
        "recipe": lambda place: place.row[1],
        "data set": lambda place: title(place.dataset),
        "accuracy (%)": lambda place: _accuracy(place),
        "seeds": seeds,
        "epochs": lambda place: whole(place.epochs),
        "params (M)": lambda place: scaled(place.costs.get("params"), 1e6),
        "MACs (G)": lambda place: scaled(place.costs.get("macs"), 1e9),
        "minutes": lambda place: mean_minutes(place.cell.timed("train_seconds", 1 / 60)) if place.cell else HOLE,
        "device": lambda place: devices_of([place.cell]) if place.cell else HOLE,
        "from": lambda place: origins_of(place.cell),
        "to fill it": lacking,
    }
    caption = sentences(
        "Test accuracy after the last planned epoch, mean ± half-width of the "
        f"{LEVEL:.0%} t-interval over the seeds. {HOLE}: no finished run; the last column is the command that "
        "trains what is missing."
    )
    return _html(Table.of("leaderboard", columns, places, caption), range(len(places)))


def _accuracy(place: Place) -> str:
    return spread(place.cell.accuracies, len(place.cell.failed)).rpartition(" (")[0] if place.cell else HOLE


KINDS = {"own": "original", "reproduction": "reproduction"}
HERE_IS = {"reached": "reproduced", "missed": "missed", "open": "open", HOLE: HOLE}


def _published(pairs: Sequence[Pair], facts: Sequence[int]) -> str:
    told = deviations()
    rows = {row.name: row for row in STUDIES["published"].rows}

    def here(pair: Pair) -> str:
        return HERE_IS[pair.verdict] + (", inside the interval" if pair.inside and pair.verdict == "missed" else "")

    def lacking(pair: Pair) -> str:
        number = pair.published
        row = rows.get((number.variant, number.recipe))
        missing = row and (not pair.cell or len(pair.cell.accuracies) < len(STUDIES["published"].seeds))
        return sweep_command_of("published", row, number.dataset, pair.cell) if row and missing else ""

    columns: Columns[Pair] = {
        "source": lambda pair: pair.published.source,
        "first printed": lambda pair: pair.published.printed or HOLE,
        "variant": lambda pair: pair.published.variant,
        "data set": lambda pair: title(pair.published.dataset),
        "published (%)": lambda pair: f"{pair.published.accuracy:.2f}" if pair.published.accuracy else HOLE,
        "kind": lambda pair: KINDS[SOURCES[pair.published.source].tier] if pair.published.accuracy else "none printed",
        "ours (%)": lambda pair: accuracy(pair.cell),
        "difference": lambda pair: HOLE if pair.difference is None else signed(pair.difference),
        "status": here,
        "epochs": lambda pair: str(pair.published.epochs),
        "note": lambda pair: pair.published.note or HOLE,
        "what deviates from its recipe": lambda pair: told.get(pair.published.recipe_name, "see RECIPES.md"),
        "to fill it": lacking,
    }
    caption = (
        "What others printed, the day on which they first did, and ours under the published recipe and budget. "
        "Original: of the source's own model; reproduction: of somebody else's, trained again. Reproduced: our mean is "
        "at least the published number; missed: it is not; open: no finished run. Most sources give their best test "
        "epoch, we give the last."
    )
    return _html(Table.of("published", columns, pairs, caption), facts)


def _study(one: Finding, at: int) -> str:
    told = "".join(f"<li>{escape_html(sentence)}</li>" for sentence in conclusions(one))
    tables = "\n".join(_html(table) for table in study_tables(one))
    head = f"<h3>{escape_html(one.study.question)}</h3>\n<p>{escape_html(one.title)}</p>"
    changed = [f"{of.label}: {changes_text(one.base.config, of.line.config)}" for of in one.effects if of.line]
    fields = f"<p>Changed: {escape_html('. '.join(changed))}.</p>\n" if changed and one.study.kind == "changes" else ""
    lacking = any(len(line.tried) < len(one.study.seeds) for line in one.lines if not line.same_as)
    more = f"<p>To continue: <span data-command>{escape_html(study_command_of(one))}</span></p>\n" if lacking else ""
    below = f"<ul>{told}</ul>\n{fields}{more}\n<details><summary>Table</summary>\n{tables}\n</details>"
    return f'<article data-study="{at}">\n{head}\n<div class="drawn"></div>\n{below}\n</article>'


def _runs(places: Sequence[Place]) -> str:
    listed = [(at, place.cell, run) for at, place in enumerate(places) if place.cell for run in place.cell.all_runs]
    columns: Columns[tuple[int, Cell, Run]] = {
        "run": lambda line: line[2].config.get("run_id") or line[2].folder.name,
        "variant": lambda line: line[1].row[0],
        "recipe": lambda line: line[1].row[1],
        "data set": lambda line: title(line[1].dataset),
        "seed": lambda line: str(line[2].config["seed"]),
        "accuracy (%)": lambda line: _percent(line[2]),
        "device": lambda line: device_of(line[2]),
        "from": lambda line: origin_of(line[2]),
        "to repeat it": lambda line: " ".join(run_command_of(line[2].config)),
    }
    table = Table.of("runs", columns, listed, "Every run: test accuracy after the last planned epoch.")
    return _html(table, [at for at, _, _ in listed])


def _percent(run: Run) -> str:
    value = finite(run.result.get("test_accuracy"))
    return f"{100 * value:.2f}" if value is not None else HOLE if run.ok else f"{HOLE} (failed)"


# --- the file --------------------------------------------------------------------------------------------------------


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _embedded(data: Any) -> str:
    """JSON in which nothing ends the element that holds it."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
