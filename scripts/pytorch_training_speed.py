"""The PyTorch beside which `cargo bench --bench training` and `scripts/gpu-check` put this crate: does what it is told, in JSON.

    python pytorch_training_speed.py [--device cuda:0] [--images-on-device] [--fixtures DIR]

The first line of the output names PyTorch and its threads. A line on the standard input is an order, a line on the standard
output its answer, `{"error": ...}` if it failed. `benches/device_check.rs` takes the same orders:

- `train MODEL IMAGES`: one client's round. From the same initial model, with a fresh optimizer, over this many images (of random
  values, CIFAR-10's shape), each flipped and cropped and normalised, in batches of 64, the trained state copied out at the end.
- `steps sgd`, `steps adam`: twenty steps of `tiny_cnn` from the fixture in DIR, and how far they end from the fixture's.

Images are varied on the CPU and then copied to the device, as in this crate, or on the device itself if told so.
"""

import argparse
import json
import pathlib
import sys
import time
import types

import torch

from pytorch_baseline import train
from pytorch_fixtures import PASSES, STEPS, adam_decayed, sgd, steps
from pytorch_zoo import build

SHAPE = (3, 32, 32)
EXAMPLES = 4096
# A job's defaults, and the batches of benches/support/noise_client.rs.
SETTINGS = types.SimpleNamespace(
    lr=0.01, momentum=0.9, weight_decay=1e-4, local_epochs=1, batch_size=64, batches=None, no_augment=False
)


class Trainings:
    """The noise, and each model that was asked for."""

    def __init__(self, device, images_on):
        self.device = device
        self.generator = torch.Generator().manual_seed(1)
        images = torch.randint(0, 256, (EXAMPLES, *SHAPE), dtype=torch.uint8, generator=self.generator)
        labels = torch.randint(0, 10, (EXAMPLES,), generator=self.generator)
        self.images, self.labels = images.to(images_on), labels.to(images_on)
        self.models = {}

    def train(self, name, count):
        if name not in self.models:
            model = build(name, SHAPE)
            initial = {key: value.clone() for key, value in model.state_dict().items()}
            self.models[name] = model.to(self.device), initial
        model, initial = self.models[name]
        chosen = torch.arange(count) % EXAMPLES
        started = time.monotonic()
        model.load_state_dict(initial)
        train(model, self.images[chosen], self.labels[chosen], SETTINGS, self.generator)
        # A copy on the CPU also waits until the device is done.
        trained = {key: value.to("cpu", copy=True) for key, value in model.state_dict().items()}
        seconds = time.monotonic() - started
        del trained
        return {"seconds": seconds}


def read(file):
    """The f32 tensors of a safetensors file, without the package."""
    raw = file.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    tensors = {}
    for name, about in json.loads(raw[8:start]).items():
        if about.get("dtype") == "F32":
            begin, end = about["data_offsets"]
            values = torch.frombuffer(bytearray(raw[start + begin : start + end]), dtype=torch.float32)
            tensors[name] = values.view(about["shape"])
    return tensors


def twenty_steps(optimizer, fixtures, device):
    """How far twenty steps end from the fixture's: the largest ||a - b|| / ||b|| of any tensor."""
    optimizer_of = {"sgd": sgd, "adam": adam_decayed}[optimizer]
    model = build("tiny_cnn", (1, 8, 8))
    model.load_state_dict(read(fixtures / "tiny_cnn.safetensors"), strict=False)
    model.dropout = 0.0
    model.to(device)
    batches = read(fixtures / "tiny_cnn.steps.safetensors")
    inputs = [batches[f"input.{at}"].to(device) for at in range(STEPS)] * PASSES
    labels = [batches[f"labels.{at}"].long().to(device) for at in range(STEPS)] * PASSES
    losses = steps(model, optimizer_of(model), inputs, labels).cpu()
    expected = read(fixtures / f"tiny_cnn.{optimizer}20.safetensors")
    state = {name: value.cpu() for name, value in model.state_dict().items()}
    distance, tensor = max(
        (((state[name] - expected[f"after.{name}"]).norm() / expected[f"after.{name}"].norm()).item(), name)
        for name in state
        if f"after.{name}" in expected
    )
    loss = (losses.mean() / expected["losses"].mean() - 1).abs().item()
    return {"distance": distance, "tensor": tensor, "loss_distance": loss}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--device", default="cpu", help="where to train")
    arguments.add_argument("--images-on-device", action="store_true", help="keep and vary the images there, too")
    arguments.add_argument("--fixtures", type=pathlib.Path, help="for `steps`: a folder with files of tests/fixtures")
    arguments = arguments.parse_args()
    trainings = Trainings(arguments.device, arguments.device if arguments.images_on_device else "cpu")
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)

    for line in sys.stdin:
        try:
            order, *words = line.split()
            if order == "train":
                answer = trainings.train(words[0], int(words[1]))
            elif order == "steps":
                answer = twenty_steps(words[0], arguments.fixtures, arguments.device)
            else:
                answer = {"error": f"{order} is no order: expected train or steps"}
        except (KeyError, IndexError, TypeError, ValueError, OSError, RuntimeError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
