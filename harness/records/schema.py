"""Owns what a run on disk looks like: its files and the fields of its result and of an epoch's line.
Refuses to read or write them.
"""

SCHEMA = 2  # 1 had neither corruption nor energy; what it lacks is read as null

FILES = ("config.json", "env.json", "cost.json", "epochs.jsonl", "predictions.npz", "result.json")

# What could not be measured is null, never 0.
RESULT_FIELDS = (
    "schema",
    "outcome",  # ok | failed
    "reason",  # why it failed
    "split",  # test | val: what was evaluated; a run with a holdout never looks at test
    "test_accuracy",  # of the last planned epoch, 0 to 1
    "best_test_accuracy",  # of the best epoch: shown beside it, never used
    "test_nll",
    "val_accuracy",
    "epochs",
    "images_seen",
    "train_seconds",  # evaluation and compilation excluded
    "compile_seconds",
    "eval_seconds",
    "images_per_second",
    "peak_memory_bytes",
    "params",
    "macs",
    "energy_joules",  # of the GPU from the first step to the last evaluation; null on a CPU
    "corruption_accuracy",  # kind -> accuracy at five strengths; null for a run with a holdout
    "corruption_seconds",
    "shared_device",  # another process used the device meanwhile, or the run took two: its times enter no table
    "sessions",  # one for each start of the process: where, after how many epochs, what it measured
)

SINCE_2 = ("energy_joules", "corruption_accuracy", "corruption_seconds", "sessions")

# `loss` and `accuracy` of the evaluated split are named after it: test_loss or val_loss.
EPOCH_FIELDS = ("epoch", "train_loss", "train_accuracy", "lr", "seconds", "eval_seconds", "images_seen")
