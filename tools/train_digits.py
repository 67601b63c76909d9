"""Train the example network that the package ships, and write its ONNX file and its images.

The network reads the 8x8 handwritten digits that come with scikit-learn. It has what makes MobileNets interesting on
fixed-point hardware: depthwise-separable blocks, batch norms, ReLU6 and a residual connection around an inverted
bottleneck. PyTorch trains it, and nothing else in the project needs PyTorch, so run this in an environment of its own::

    python -m venv train-env
    train-env/bin/pip install torch==2.13.0 numpy scikit-learn onnx onnxruntime
    train-env/bin/python tools/train_digits.py                          # writes accelsim/data/digits.{onnx,npz}
    train-env/bin/python tools/train_digits.py --seed 1 --output DIR    # another training run, same split
    train-env/bin/python tools/train_digits.py --validate               # for trying settings: writes nothing

The split is fixed and stratified by digit: 500 images are held back, the others train, and 500 of those also serve as
calibration images. Settings were chosen with ``--validate``, which splits 297 images off the training images and never
looks at the held-back ones. Training runs for a fixed number of epochs and the last weights are kept, so no checkpoint
is picked by its held-back accuracy either. One thread, fixed seeds and deterministic algorithms make the run repeatable
on one machine with one version of PyTorch; another machine may round differently and end at other weights.

The ONNX graph is built node by node instead of exported, so that batch norms stay BatchNormalization nodes and every
node and tensor has a name that a report can print. Its input is the image as the data set has it: float32, shape
(N, 1, 8, 8), pixel values 0..16.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

NUM_HELD_BACK = 500
NUM_CALIBRATION = 500
NUM_VALIDATION = 297
SPLIT_SEED = 0

EPOCHS = 150
BATCH_SIZE = 64
LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-4
LARGEST_SHIFT = 1

OPSET = 17
IR_VERSION = 8
DEFAULT_OUTPUT = Path(__file__).resolve().parent.parent / "accelsim" / "data"

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


class Layer(NamedTuple):
    """One convolution with its batch norm.

    Parameters
    ----------
    name : str
        Prefix of the names of its nodes and weights.
    channels_in, channels_out, kernel, stride, groups : int
        Geometry; the padding keeps the size at stride 1.
    relu6 : bool
        Whether ReLU6 follows the batch norm.
    residual_from : str
        Name of the layer whose output is added at the end, empty for none.
    """

    name: str
    channels_in: int
    channels_out: int
    kernel: int
    stride: int = 1
    groups: int = 1
    relu6: bool = True
    residual_from: str = ""


LAYERS = (
    Layer("stem", 1, 16, kernel=3),
    Layer("separable1_depthwise", 16, 16, kernel=3, groups=16),
    Layer("separable1_pointwise", 16, 32, kernel=1),
    Layer("separable2_depthwise", 32, 32, kernel=3, stride=2, groups=32),
    Layer("separable2_pointwise", 32, 48, kernel=1),
    Layer("bottleneck_expand", 48, 96, kernel=1),
    Layer("bottleneck_depthwise", 96, 96, kernel=3, groups=96),
    # The projection is linear, as in MobileNetV2: a ReLU6 here would throw away half of what the residual adds.
    Layer("bottleneck_project", 96, 48, kernel=1, relu6=False, residual_from="separable2_pointwise"),
)
NUM_FEATURES = LAYERS[-1].channels_out
NUM_CLASSES = 10


@dataclass(frozen=True)
class Split:
    """Images of shape (count, 1, 8, 8) with pixel values 0..16, and their digits.

    Parameters
    ----------
    x_train, y_train : arrays
        What training may look at.
    x_test, y_test : arrays
        What it may not.
    """

    x_train: Pixels
    y_train: Labels
    x_test: Pixels
    y_test: Labels


class DigitsNet(nn.Module):
    """The network in PyTorch: `LAYERS`, then the mean over space and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleDict()
        self.norms = nn.ModuleDict()
        for layer in LAYERS:
            self.convolutions[layer.name] = nn.Conv2d(
                layer.channels_in,
                layer.channels_out,
                layer.kernel,
                stride=layer.stride,
                padding=layer.kernel // 2,
                groups=layer.groups,
                bias=False,
            )
            self.norms[layer.name] = nn.BatchNorm2d(layer.channels_out)
        self.classifier = nn.Linear(NUM_FEATURES, NUM_CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of raw images, shape (N, 10)."""
        outputs: dict[str, torch.Tensor] = {}
        values = images
        for layer in LAYERS:
            values = self.norms[layer.name](self.convolutions[layer.name](values))
            if layer.relu6:
                values = functional.relu6(values)
            if layer.residual_from:
                values = values + outputs[layer.residual_from]
            outputs[layer.name] = values
        logits: torch.Tensor = self.classifier(values.mean(dim=(2, 3)))
        return logits


def split_stratified(images: Pixels, labels: Labels, num_test: int) -> Split:
    """Split images with the same share of each digit on both sides, and check that no image is on both."""
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=num_test, stratify=labels, random_state=SPLIT_SEED
    )
    shared = {image.tobytes() for image in x_train} & {image.tobytes() for image in x_test}
    if shared or len(x_train) + len(x_test) != len(images):
        raise SystemExit(f"the split must be disjoint and complete, but {len(shared)} images are on both sides")
    return Split(x_train, y_train, x_test, y_test)


def load_split() -> Split:
    """Return all 1797 digits of scikit-learn, split into training and held-back images."""
    digits = load_digits()
    images = digits.images.astype(np.uint8)[:, np.newaxis]
    if not np.array_equal(images[:, 0], digits.images):
        raise SystemExit("pixels must be whole numbers from 0 to 255; scikit-learn's digits have changed")
    return split_stratified(images, digits.target.astype(np.int64), NUM_HELD_BACK)


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Move each image by up to `LARGEST_SHIFT` pixels in each direction, filling with background."""
    count, _, height, width = images.shape
    padded = functional.pad(images, [LARGEST_SHIFT] * 4)
    row, column = torch.randint(0, 2 * LARGEST_SHIFT + 1, (2, count, 1, 1), generator=generator)
    rows = row + torch.arange(height).view(1, height, 1)
    columns = column + torch.arange(width).view(1, 1, width)
    return padded[torch.arange(count).view(count, 1, 1), 0, rows, columns].unsqueeze(1)


def train(images: Pixels, labels: Labels, seed: int, epochs: int) -> DigitsNet:
    """Train a new network for a fixed number of epochs and return it in evaluation mode."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = DigitsNet()
    inputs, targets = torch.from_numpy(images).float(), torch.from_numpy(labels)
    # A last batch of a few images would make poor batch statistics, so it is left out; the order changes every epoch.
    num_batches = len(inputs) // BATCH_SIZE
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=epochs * num_batches)
    network.train()
    for epoch in range(epochs):
        order = torch.randperm(len(inputs), generator=generator)
        total = 0.0
        for batch in order[: num_batches * BATCH_SIZE].split(BATCH_SIZE):
            optimizer.zero_grad()
            logits = network(shifted(inputs[batch], generator))
            loss = functional.cross_entropy(logits, targets[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        if (epoch + 1) % 25 == 0:
            print(f"epoch {epoch + 1:3d} of {epochs}: mean loss {total / num_batches:.4f}", flush=True)
    network.eval()
    return network


def count_correct(network: DigitsNet, images: Pixels, labels: Labels) -> int:
    """Return how many images the network classifies right."""
    with torch.no_grad():
        predicted = network(torch.from_numpy(images).float()).argmax(dim=1)
    return int((predicted.numpy() == labels).sum())


def _array(name: str, tensor: torch.Tensor) -> onnx.TensorProto:
    """Return a weight as an ONNX initializer."""
    return numpy_helper.from_array(tensor.detach().numpy().astype(np.float32), name)


def _layer_nodes(layer: Layer, network: DigitsNet, source: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return the nodes and weights of one layer that reads the tensor ``source`` and makes ``<name>_out``."""
    name, norm = layer.name, network.norms[layer.name]
    weights = [
        _array(f"{name}_weight", network.convolutions[name].weight),
        _array(f"{name}_bn_scale", norm.weight),
        _array(f"{name}_bn_bias", norm.bias),
        _array(f"{name}_bn_mean", norm.running_mean),
        _array(f"{name}_bn_variance", norm.running_var),
    ]
    nodes = [
        helper.make_node(
            "Conv",
            [source, f"{name}_weight"],
            [f"{name}_conv_out"],
            name=f"{name}_conv",
            dilations=[1, 1],
            group=layer.groups,
            kernel_shape=[layer.kernel] * 2,
            pads=[layer.kernel // 2] * 4,
            strides=[layer.stride] * 2,
        )
    ]
    tail = ("bn", "relu6") if layer.relu6 else ("bn", "add") if layer.residual_from else ("bn",)
    made = [f"{name}_{step}_out" for step in tail[:-1]] + [f"{name}_out"]
    nodes.append(
        helper.make_node(
            "BatchNormalization",
            [f"{name}_conv_out", *(weight.name for weight in weights[1:])],
            [made[0]],
            name=f"{name}_bn",
            epsilon=norm.eps,
        )
    )
    if layer.relu6:
        nodes.append(helper.make_node("Clip", [made[0], "relu6_min", "relu6_max"], [made[1]], name=f"{name}_relu6"))
    elif layer.residual_from:
        nodes.append(helper.make_node("Add", [made[0], f"{layer.residual_from}_out"], [made[1]], name=f"{name}_add"))
    return nodes, weights


def build_onnx(network: DigitsNet, num_correct: int, num_images: int, seed: int) -> onnx.ModelProto:
    """Return the network as an ONNX model that carries its held-back result as metadata."""
    nodes: list[onnx.NodeProto] = []
    weights = [
        numpy_helper.from_array(np.array(0.0, dtype=np.float32), "relu6_min"),
        numpy_helper.from_array(np.array(6.0, dtype=np.float32), "relu6_max"),
    ]
    tensor = "image"
    for layer in LAYERS:
        layer_nodes, layer_weights = _layer_nodes(layer, network, tensor)
        nodes += layer_nodes
        weights += layer_weights
        tensor = f"{layer.name}_out"
    nodes += [
        helper.make_node("GlobalAveragePool", [tensor], ["pool_out"], name="pool"),
        helper.make_node("Flatten", ["pool_out"], ["features"], name="flatten", axis=1),
        helper.make_node(
            "Gemm",
            ["features", "classifier_weight", "classifier_bias"],
            ["logits"],
            name="classifier",
            transB=1,
        ),
    ]
    weights += [
        _array("classifier_weight", network.classifier.weight),
        _array("classifier_bias", network.classifier.bias),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", NUM_CLASSES])],
        weights,
        doc_string="Handwritten digits: image (N, 1, 8, 8) with pixel values 0..16 to the logits of ten digits.",
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="tools/train_digits.py",
    )
    helper.set_model_props(
        model,
        {
            "held_back_correct": str(num_correct),
            "held_back_images": str(num_images),
            "training_seed": str(seed),
            "training_torch": torch.__version__,
        },
    )
    onnx.checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def check_against_runtime(network: DigitsNet, model: onnx.ModelProto, images: Pixels, labels: Labels) -> None:
    """Stop unless ONNX Runtime gives PyTorch's logits within float32 rounding, and the same number of right answers."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"image": images.astype(np.float32)})[0]
    with torch.no_grad():
        wanted = network(torch.from_numpy(images).float()).numpy()
    # The two sum in different orders, and the runtime folds the batch norms: a few units in the last place per layer.
    largest = float(np.abs(logits - wanted).max())
    if largest > 1e-3:
        raise SystemExit(f"ONNX Runtime and PyTorch must agree within 1e-3, largest difference {largest:.2e}")
    counts = int((logits.argmax(axis=1) == labels).sum()), int((wanted.argmax(axis=1) == labels).sum())
    if counts[0] != counts[1]:
        raise SystemExit(f"ONNX Runtime gets {counts[0]} held-back images right and PyTorch {counts[1]}")
    print(f"ONNX Runtime: {counts[0]} right too, largest difference of a logit {largest:.1e}")


def write_files(output: Path, model: onnx.ModelProto, split: Split) -> None:
    """Write ``digits.onnx`` and ``digits.npz``; each appears whole or not at all."""
    x_calibration, _, y_calibration, _ = train_test_split(
        split.x_train, split.y_train, train_size=NUM_CALIBRATION, stratify=split.y_train, random_state=SPLIT_SEED
    )
    output.mkdir(parents=True, exist_ok=True)
    partial = output / "digits.partial"
    partial.write_bytes(model.SerializeToString(deterministic=True))
    partial.replace(output / "digits.onnx")
    with partial.open("wb") as file:
        np.savez_compressed(
            file,
            x_test=split.x_test,
            y_test=split.y_test.astype(np.uint8),
            x_calibration=x_calibration,
            y_calibration=y_calibration.astype(np.uint8),
        )
    partial.replace(output / "digits.npz")
    for name in ("digits.onnx", "digits.npz"):
        print(f"wrote {output / name}: {(output / name).stat().st_size} bytes")


def main() -> None:
    """Train, report the accuracies, and write the two files unless validating."""
    parser = argparse.ArgumentParser(description="Train the example network that the package ships.")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, order and shifts (the split is fixed)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="passes over the training images")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="folder of digits.onnx and digits.npz")
    parser.add_argument("--validate", action="store_true", help="hold back training images instead, and write nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    split = load_split()
    if arguments.validate:
        split = split_stratified(split.x_train, split.y_train, NUM_VALIDATION)
    begin = time.perf_counter()
    network = train(split.x_train, split.y_train, arguments.seed, arguments.epochs)
    seconds = time.perf_counter() - begin
    num_weights = sum(parameter.numel() for parameter in network.parameters())
    print(f"seed {arguments.seed}: {num_weights} weights trained in {seconds:.0f} s")
    for kind, images, labels in (
        ("training", split.x_train, split.y_train),
        ("validation" if arguments.validate else "held-back", split.x_test, split.y_test),
    ):
        correct = count_correct(network, images, labels)
        print(f"{kind}: {correct} of {len(images)} right, {100 * correct / len(images):.2f} %")
    if not arguments.validate:
        model = build_onnx(network, correct, len(split.x_test), arguments.seed)
        check_against_runtime(network, model, split.x_test, split.y_test)
        write_files(arguments.output, model, split)


if __name__ == "__main__":
    main()
