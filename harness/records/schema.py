"""Owns what a run on disk looks like: its files and the fields of its result and of an epoch's line.
Refuses to read or write them.
"""

SCHEMA = 1

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
    "shared_device",  # another process used the device meanwhile: its times enter no table
)

# `loss` and `accuracy` of the evaluated split are named after it: test_loss or val_loss.
EPOCH_FIELDS = ("epoch", "train_loss", "train_accuracy", "lr", "seconds", "eval_seconds", "images_seen")
