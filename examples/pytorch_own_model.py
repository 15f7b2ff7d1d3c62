#!/usr/bin/env python3
"""Trains a PyTorch model that the coordinator has never seen, on data that never leaves the worker that has it.

    fedavg-coordinator                                                # as it comes: it needs nothing of this file
    python3 examples/pytorch_own_model.py initial initial.safetensors
    python3 examples/pytorch_own_model.py work --site 1               # each in a terminal, or on a machine, of its own
    python3 examples/pytorch_own_model.py work --site 2
    fedavg submit --model readings_net --dataset readings --partition local --initial initial.safetensors --min-workers 2 \\
        --lr 0.1 --rounds 10 --watch
    fedavg results 1 --output results
    python3 examples/pytorch_own_model.py evaluate results/model.safetensors

It needs PyTorch, NumPy and safetensors. For a model of your own, replace `Net` and `Readings`. docs/pytorch.md has the rest.
"""

import argparse
import sys

import numpy as np
import pytorch_training
import pytorch_worker
from safetensors import SafetensorError

try:
    import torch
    from safetensors.torch import load_file, save_file
    from torch import nn
    from torch.utils.data import Dataset
except ImportError:  # `--trainer numpy` does without PyTorch: this is how CI runs the example.
    torch, Dataset = None, object
    from safetensors.numpy import load_file, save_file

FEATURES, HIDDEN, CLASSES = 16, 32, 4

if torch:

    class Net(nn.Module):
        """`[N, 16]` readings -> `[N, 4]` logits."""

        def __init__(self):
            super().__init__()
            self.hidden = nn.Linear(FEATURES, HIDDEN)
            self.norm = nn.BatchNorm1d(HIDDEN)
            self.out = nn.Linear(HIDDEN, CLASSES)

        def forward(self, readings):
            return self.out(torch.relu(self.norm(self.hidden(readings))))


class Readings(Dataset):
    """What the sensors of one site read, and the state of the machine that they watch: 0, 1, 2 or 3.

    These readings are made up. Yours would come from a file that only this worker can read. At each site, one of the states
    never occurs, so that no site alone can train a model that knows all four.
    """

    def __init__(self, site, split, count=None):
        count = count or {"train": 400 + 200 * site, "test": 200}[split]
        # Two typical readings for each state, the same everywhere.
        typical = np.random.default_rng(0).normal(size=(CLASSES, 2, FEATURES))
        rng = np.random.default_rng([site, split == "test"])
        often = np.roll([0.4, 0.3, 0.3, 0.0], site)
        self.labels = rng.choice(CLASSES, count, p=often)
        noise = rng.normal(size=(count, FEATURES))
        readings = typical[self.labels, rng.integers(0, 2, count)] + 0.8 * noise
        self.readings = (readings * (0.5 + 0.5 * site)).astype(np.float32)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.readings[index], self.labels[index]


class NumpyNet(pytorch_training.NumpyTrainer):
    """`Net` without PyTorch, for CI: the same tensors, the same steps."""

    momentum, eps = 0.1, 1e-5  # As in `nn.BatchNorm1d`.

    @staticmethod
    def state_dict():
        """A fresh model as PyTorch saves it, with the number of batches that BatchNorm has seen."""
        rng, state = np.random.default_rng(0), {}
        for name, outputs, inputs in (("hidden", HIDDEN, FEATURES), ("out", CLASSES, HIDDEN)):
            limit = inputs**-0.5
            state[f"{name}.weight"] = rng.uniform(-limit, limit, (outputs, inputs)).astype(np.float32)
            state[f"{name}.bias"] = rng.uniform(-limit, limit, outputs).astype(np.float32)
        for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            state[f"norm.{name}"] = np.full(HIDDEN, value, np.float32)
        return {**state, "norm.num_batches_tracked": np.array(0, np.int64)}

    def forward(self, readings, training=False):
        values = self.values
        before = readings @ values["hidden.weight"].T + values["hidden.bias"]
        mean, var = values["norm.running_mean"], values["norm.running_var"]
        if training:
            mean, var, count = before.mean(0), before.var(0), len(before)
            values["norm.running_mean"] += self.momentum * (mean - values["norm.running_mean"])
            values["norm.running_var"] += self.momentum * (var * count / (count - 1) - values["norm.running_var"])
        self.deviation = np.sqrt(var + self.eps)
        self.normal = (before - mean) / self.deviation
        self.active = np.maximum(self.normal * values["norm.weight"] + values["norm.bias"], 0)
        return self.active @ values["out.weight"].T + values["out.bias"]

    def gradients(self, readings, labels):
        logits = self.forward(readings, training=True)
        loss, error = pytorch_training.loss_of(logits, labels)
        error /= len(labels)  # The gradient is that of the mean.
        gradients = {"out.weight": error.T @ self.active, "out.bias": error.sum(0)}
        error = error @ self.values["out.weight"] * (self.active > 0)
        gradients.update({"norm.weight": (error * self.normal).sum(0), "norm.bias": error.sum(0)})
        error *= self.values["norm.weight"]
        # Through the batch's mean and variance, on which every example of the batch depends.
        error = (error - error.mean(0) - self.normal * (error * self.normal).mean(0)) / self.deviation
        gradients.update({"hidden.weight": error.T @ readings, "hidden.bias": error.sum(0)})
        return gradients, loss, int((logits.argmax(1) == labels).sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    initial = commands.add_parser("initial", help="write the model that the job starts from")
    worker = commands.add_parser("work", help="train for a coordinator on this site's data")
    evaluate = commands.add_parser("evaluate", help="say how good a model is on data of all sites")
    for command in (initial, evaluate):
        command.add_argument("file", metavar="FILE.safetensors")
    worker.add_argument("--site", metavar="N", type=int, default=1, help="whose data this worker has, from 1 (1)")
    pytorch_worker.add_options(worker, name=None)
    for command in (initial, worker, evaluate):
        command.add_argument("--trainer", choices=["torch", "numpy"], default="torch")
    options = parser.parse_args()
    use_torch = options.trainer == "torch"
    if use_torch and not torch:
        parser.error("PyTorch is not installed: pip install torch, or --trainer numpy")
    try:
        run(options, use_torch)
    except (OSError, SafetensorError) as error:
        sys.exit(f"{getattr(options, 'file', options.command)}: {error}")


def run(options, use_torch):
    """Carries the command out."""
    if options.command == "initial":
        save_file(Net().state_dict() if use_torch else NumpyNet.state_dict(), options.file)
    elif options.command == "work":
        # A coordinator knows a worker with data of its own by its name when it comes back.
        options.name = options.name or f"site-{options.site}"
        data = pytorch_training.OwnData("readings", Readings(options.site, "train"), Readings(options.site, "test"))
        trainer = pytorch_training.TorchTrainer(lambda name, dataset: Net()) if use_torch else NumpyNet()
        pytorch_worker.work(trainer, [data], options, local=True)
    else:
        right = count = 0
        for site in (1, 2, 3):  # No worker has the data of the third one.
            readings = Readings(site, "test", count=1000)
            right += int((predict(options.file, readings.readings, use_torch) == readings.labels).sum())
            count += len(readings)
        print(f"{options.file}: {100 * right / count:.1f} % of {count} examples are right")


def predict(file, readings, use_torch):
    """The classes of these readings, by the model in the file."""
    if not use_torch:
        model = NumpyNet()
        model.load("readings_net", None, load_file(file))
        return model.forward(readings).argmax(1)
    model = Net()
    model.load_state_dict(load_file(file))
    model.eval()
    with torch.no_grad():
        return model(torch.from_numpy(readings)).argmax(1).numpy()


if __name__ == "__main__":
    main()
