"""Owns the least ratios that this project set itself, by kind of device and name of the benchmark.
Refuses to be lowered to what was measured: a miss is shown as one.
"""

GOALS = {
    ("cpu", "pipeline s1"): 25.0,
    ("cpu", "loop compact s2 batch 256"): 1 / 1.03,  # an epoch takes at most 1.03 of the same steps on staged tensors
    ("cpu", "body patch2 batch 64"): 1.0,
    ("cuda", "body patch2 batch 64"): 1.0,
    ("cpu", "start"): 1 / 0.3,
    ("cpu", "beside 2 busy processes"): 1 / 2.5,  # a run takes at most 2.5 times as long as alone
    ("cuda", "train vanilla s1 batch 128"): 10.0,
}


def goal(device_type: str, name: str) -> float | None:
    return GOALS.get((device_type, name))
