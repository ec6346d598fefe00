"""Owns which figures a study has: its effects, and accuracy along what it scales or along the factors of its grid.
Refuses to draw one thing twice: a grid that is drawn over passes is not drawn from level to level as well.
"""

from collections.abc import Callable
from typing import Any

from harness.evidence.figures.along import draw_along, interaction_data, scaling_data
from harness.evidence.figures.forest import draw_forest, forest_data
from harness.evidence.findings import Finding

PREFIXES = ("forest-", "interaction-", "scaling-")


def study_figures(instance: Finding) -> list[tuple[str, dict[str, Any], Callable[..., Any], str]]:
    """Name, data, how it is drawn, and why it cannot be."""
    effects = forest_data(instance)
    found = [(f"forest-{instance.name}", effects, draw_forest, "" if effects["rows"] else "no seed is on two sides")]
    if along := scaling_data(instance):
        found.append((f"scaling-{instance.name}", along, draw_along, ""))
    elif along := interaction_data(instance):
        found.append((f"interaction-{instance.name}", along, draw_along, ""))
    return found
