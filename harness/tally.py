"""Owns what adds up while a run goes on, over every session that it took; a failed run is recorded with what it had.
Refuses to measure: it asks the device and adds.
"""

from dataclasses import dataclass, field
from typing import Any

import torch

from harness.config import RunConfig
from harness.training import device as devices
from harness.training.energy import Meter


@dataclass
class Session:
    """From one start of the process to its end: what it measured for itself."""

    device: torch.device
    facts: dict[str, Any]  # device and versions, and how many epochs were done before
    neighbours: devices.Neighbours
    meter: Meter
    compile_seconds: float | None = None

    def to_plain(self) -> dict[str, Any]:
        return {
            **self.facts,
            "compile_seconds": self.compile_seconds,
            "energy_joules": self.meter.joules(),
            "peak_memory_bytes": devices.peak_memory_bytes(self.device),
            "shared_device": self.neighbours.seen,
        }


@dataclass
class Tally:
    config: RunConfig
    params: int
    macs: int | None
    lines: list[dict[str, Any]] = field(default_factory=list)
    earlier: list[dict[str, Any]] = field(default_factory=list)  # sessions that ended before the run did
    session: Session | None = None
    fresh: bool = False  # it was wanted although there was a record
    corruption_accuracy: dict[str, list[float]] | None = None
    corruption_seconds: float | None = None

    @property
    def sessions(self) -> list[dict[str, Any]]:
        return [*self.earlier, *([self.session.to_plain()] if self.session else [])]

    def carry(self) -> dict[str, Any]:
        """What the next session needs, should this one end here."""
        threads = torch.get_num_threads()
        return {"lines": list(self.lines), "sessions": self.sessions, "fresh": self.fresh, "threads": threads}

    def result(self, reason: str | None) -> dict[str, Any]:
        lines, split = self.lines, "val" if self.config.holdout else "test"
        last = lines[-1] if lines and reason is None else {}
        seconds = sum(line["seconds"] for line in lines)
        images = lines[-1]["images_seen"] if lines else 0
        on_test = split == "test"
        return {
            "outcome": "ok" if reason is None else "failed",
            "reason": reason,
            "split": split,
            "test_accuracy": last.get("test_accuracy"),
            "best_test_accuracy": max(line["test_accuracy"] for line in lines) if last and on_test else None,
            "test_nll": last.get("test_loss"),
            "val_accuracy": last.get("val_accuracy"),
            "epochs": len(lines),
            "images_seen": images,
            "train_seconds": seconds if lines else None,
            "compile_seconds": self._total("compile_seconds"),
            "eval_seconds": sum(line["eval_seconds"] for line in lines) if lines else None,
            "images_per_second": images / seconds if lines else None,
            "peak_memory_bytes": max((s["peak_memory_bytes"] or 0 for s in self.sessions), default=0) or None,
            "params": self.params,
            "macs": self.macs,
            "energy_joules": self._total("energy_joules"),
            "corruption_accuracy": self.corruption_accuracy,
            "corruption_seconds": self.corruption_seconds,
            "shared_device": self._shared(),
            "sessions": self.sessions,
        }

    def _total(self, name: str) -> float | None:
        """None where any session could not measure it."""
        values = [session[name] for session in self.sessions]
        return sum(values) if values and None not in values else None

    def _shared(self) -> bool | None:
        """Times of two devices are the time of neither."""
        seen = [session["shared_device"] for session in self.sessions]
        if any(seen) or len({session["device_name"] for session in self.sessions}) > 1:
            return True
        return None if not seen or None in seen else False
