"""What a run has measured so far, over every process that trained a part of it: the lines of its epochs, and from each
process its device, memory, energy and neighbours. A failed run is recorded with what it had.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.training import device as devices


class Session:
    """One process's part of a run, and whether anybody else computed on its device meanwhile."""

    def __init__(self, device: torch.device, facts: dict[str, Any]):
        self.device, self.facts = device, facts  # device and versions, and how many epochs were done before
        self.meter = devices.Meter(device)
        self.compile_seconds: float | None = None
        self.shared, self.looked_s = "gpu_share" in facts or devices.is_shared(device), time.monotonic()

    def look(self, last: bool = False) -> None:
        """At most once a minute."""
        if time.monotonic() - self.looked_s < 60 and not last:
            return
        self.looked_s, now = time.monotonic(), devices.is_shared(self.device)
        self.shared = now if self.shared is None else self.shared or bool(now)

    def to_plain(self) -> dict[str, Any]:
        return {
            **self.facts,
            "compile_seconds": self.compile_seconds,
            # That of a device which others use too, or of one among several, is not the run's.
            "energy_joules": None if self.facts.keys() & {"world_size", "gpu_share"} else self.meter.joules(),
            "peak_memory_bytes": devices.peak_memory_bytes(self.device),
            "shared_device": self.shared,
        }


@dataclass
class History:
    lines: list[dict[str, Any]] = field(default_factory=list)
    earlier: list[dict[str, Any]] = field(default_factory=list)  # sessions that ended before the run did
    session: Session | None = None
    fresh: bool = False  # trained again by --fresh, although there was a record
    corruption_accuracy: dict[str, list[float]] | None = None
    corruption_seconds: float | None = None

    @property
    def sessions(self) -> list[dict[str, Any]]:
        return [*self.earlier, *([self.session.to_plain()] if self.session else [])]

    def to_plain(self) -> dict[str, Any]:
        """What the next session needs, should this one end here."""
        threads = torch.get_num_threads()
        return {"lines": list(self.lines), "sessions": self.sessions, "fresh": self.fresh, "threads": threads}

    def go_on(self, plain: dict[str, Any]) -> None:
        self.lines, self.earlier = list(plain["lines"]), list(plain["sessions"])
        self.fresh = self.fresh or bool(plain.get("fresh"))

    def result(self, split: str, reason: str | None) -> dict[str, Any]:
        """The fields of result.json that the training gives. `reason`: why it failed, if it did."""
        lines = self.lines
        last = lines[-1] if lines and reason is None else {}
        seconds = sum(line["seconds"] for line in lines)
        images = lines[-1]["images_seen"] if lines else 0
        best = max(line["test_accuracy"] for line in lines) if last and split == "test" else None
        sessions = self.sessions
        return {
            "outcome": "ok" if reason is None else "failed",
            "reason": reason,
            "split": split,
            "test_accuracy": last.get("test_accuracy"),
            "best_test_accuracy": best,
            "test_nll": last.get("test_loss"),
            "val_accuracy": last.get("val_accuracy"),
            "epochs": len(lines),
            "images_seen": images,
            "train_seconds": seconds if lines else None,
            "compile_seconds": total(sessions, "compile_seconds"),
            "eval_seconds": sum(line["eval_seconds"] for line in lines) if lines else None,
            "images_per_second": images / seconds if lines else None,
            "peak_memory_bytes": max((s["peak_memory_bytes"] or 0 for s in sessions), default=0) or None,
            "energy_joules": total(sessions, "energy_joules"),
            "corruption_accuracy": self.corruption_accuracy,
            "corruption_seconds": self.corruption_seconds,
            "shared_device": shared(sessions),
            "sessions": sessions,
        }


def total(sessions: list[dict[str, Any]], name: str) -> float | None:
    """None where any session could not measure it."""
    values = [session[name] for session in sessions]
    return sum(values) if values and None not in values else None


def shared(sessions: list[dict[str, Any]]) -> bool | None:
    """Whether the times are not those of whole batches on one device that the run had for itself, without other seeds
    or processes."""
    not_alone = {"seeds", "world_size", "accumulate"}
    seen = [True if session.keys() & not_alone else session["shared_device"] for session in sessions]
    if any(seen) or len({session["device_name"] for session in sessions}) > 1:
        return True
    return None if not seen or None in seen else False
