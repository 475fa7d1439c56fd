"""One linear layer by `F.linear`, which multiplies by MKL where torch is built with it, against oneDNN.

To see whether calling another library would pay. oneDNN is called as the compiler of torch calls it, with the weight
rearranged beforehand for this batch size ("packed") and without; packing is of use only where weights stay the same
over many calls. With freezing, compiled code holds packed weights as constants, and the compiler chooses the library.
"""

from __future__ import annotations

import torch
from torch.nn.functional import linear

from benchmarks.speed.measure import Row, against_peers, side_by_side

SHAPES = ((512, 784, 100), (512, 100, 784), (128, 64, 128), (32, 2, 32))


def onednn(x, weight, bias):
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def case(batch, inputs, outputs, *, repeats):
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(inputs, outputs), torch.randn(batch, inputs)
    weight, bias = layer.weight.detach(), layer.bias.detach()
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, batch)
    torch._dynamo.reset()
    frozen = torch.compile(layer.eval(), options={"freezing": True})
    runs = {
        "F.linear": lambda: linear(x, weight, bias),
        "oneDNN, packed": lambda: onednn(x, packed, bias),
        "oneDNN": lambda: onednn(x, weight, bias),
        "compiled with freezing": lambda: frozen(x),
    }
    with torch.no_grad():
        seconds = side_by_side(runs, repeats)
        gap = max(float((run() - runs["F.linear"]()).abs().max()) for run in runs.values())
    return against_peers(
        f"linear layer, {batch} x {inputs} -> {outputs}, float32",
        seconds,
        ("F.linear",),
        notes={"F.linear": f"results differ by at most {gap:.0e}"},
    )


def run(*, smoke: bool) -> list[Row]:
    if smoke:
        return case(4, 3, 5, repeats=1)
    return [row for shape in SHAPES for row in case(*shape, repeats=21)]
