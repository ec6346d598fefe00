"""Hand a trained model on, to ONNX or to timm. What is written gave the model's own logits first, at batch 1 and 7.

RUN is a run's folder, a run id, or a file model.safetensors. The ONNX graph takes any number of RGB images in [0, 1],
of the size that the model was trained with, and scales them itself; its metadata hold the names of the classes. It is
made with the extra: pip install '.[onnx]'. A timm file is for timm's VisionTransformer, printed as it is to be built;
of a variant that timm has no words for, the fields are named that stand in the way.

examples:
  python -m harness.export results/runs/RUN_ID --onnx
  python -m harness.export RUN_ID --onnx model.onnx
  python -m harness.export RUN_ID --timm
"""

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.commands import Parser, new_file, run_command
from harness.records.read import named_run
from harness.records.write import write_atomically
from variants.fields import UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from variants.weights import Card

BATCHES = (1, 7)  # that are compared
ONNX_TOLERANCE, TIMM_TOLERANCE = 1e-4, 1e-5  # of logits
OPSET = 18  # the exporter's own, which every onnxruntime since 1.14 reads
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def parser() -> Parser:
    p = Parser("harness.export", __doc__ or "")
    p.add_argument("run", metavar="RUN", help="see above")
    form: dict[str, Any] = {"type": new_file, "nargs": "?", "const": False, "metavar": "FILE"}  # False: no name given
    p.add_argument("--onnx", help="(default: RUN_ID.onnx here)", **form)
    p.add_argument("--timm", help="(default: RUN_ID-timm.safetensors here)", **form)
    return p


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    if args.onnx is None and args.timm is None:
        raise UsageError("export to what? --onnx or --timm")
    if args.onnx is not None and (missing := [name for name in PACKAGES if not importlib.util.find_spec(name)]):
        raise UsageError(f"--onnx needs {', '.join(missing)}: pip install '.[onnx]'")
    from variants.weights import card_of, load

    source = named_run(args.run)
    card, model = card_of(source), load(source)
    name = card.run_id or Path(source).stem
    if args.timm is not None:
        export_timm(model, card, args.timm or Path(f"{name}-timm.safetensors"))
    if args.onnx is not None:
        export_onnx(model, card, args.onnx or Path(f"{name}.onnx"))
    return 0


def export_timm(model: "nn.Module", card: "Card", path: Path) -> None:
    from variants.as_timm import code_of, obstacles, to_timm, twin
    from variants.tokenizer import resized
    from variants.weights import to_bytes

    config = card.config
    if found := obstacles(config):
        raise UsageError(f"timm has no such model: {card.variant_name} has {', '.join(found)}")
    theirs, tensors = twin(config).eval(), to_timm(config, model.state_dict())
    theirs.load_state_dict(tensors)
    check(model, card, lambda images: theirs(resized(images, config.resize)), TIMM_TOLERANCE)
    write_atomically(path, to_bytes(tensors, card))
    before = f"resized to {config.resize} pixels, " if config.resize else ""
    print(
        f"{path}: equal to {TIMM_TOLERANCE:g}; for images {before}scaled by mean {card.mean} and std {card.std}, in\n"
    )
    print(code_of(config))


def export_onnx(model: "nn.Module", card: "Card", path: Path) -> None:
    import onnxruntime
    import torch

    from variants.weights import OfPixels

    scaled, side = OfPixels(model, card).eval(), card.config.image_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about its own future
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program: Any = torch.onnx.export(
            scaled,
            (torch.rand(2, 3, side, side),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["images"],
            output_names=["logits"],
            opset_version=OPSET,
            verbose=False,
        )
    facts = {**asdict(card), "input": f"images in [0, 1], B x 3 x {side} x {side}; the graph scales them itself"}
    program.model.metadata_props.update({name: json.dumps(value) for name, value in facts.items()})
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    check(scaled, card, lambda images: session.run(None, {"images": images.numpy()})[0], ONNX_TOLERANCE)
    write_atomically(path, content)
    print(f"{path}: equal to {ONNX_TOLERANCE:g} under onnxruntime; images in [0, 1], B x 3 x {side} x {side} -> logits")


def check(model: "nn.Module", card: "Card", other: "Callable[[torch.Tensor], Any]", tolerance: float) -> None:
    """UsageError where the other gives other logits, before anything is written."""
    import torch

    side, generator = card.config.image_size, torch.Generator().manual_seed(0)
    for count in BATCHES:
        images = torch.rand(count, 3, side, side, generator=generator)
        with torch.inference_mode():
            apart = float(np.abs(np.asarray(model(images)) - np.asarray(other(images))).max())
        if not apart <= tolerance:
            raise UsageError(f"not exported: logits differ by {apart:.2g}, more than {tolerance:g}, at batch {count}")


if __name__ == "__main__":
    run_command(main)
