"""What `pytorch_worker.py` trains: the crate's datasets, and its models in NumPy and in PyTorch.

A dataset of the crate's must hold the same examples in the same order, which its fingerprint shows, and a model of the crate's
must have its names and shapes. For another model and data of a worker's own there are `TorchTrainer` and `OwnData`: see
`pytorch_own_model.py`. How a model is trained is the worker's own business, as long as it does what the task says.
"""

import collections
import dataclasses
import functools
import hashlib
import struct

import numpy as np


def train(trainer, dataset, indices, training, rng, check):
    """Trains on the examples at `indices`: the number of steps, and the metrics. Calls `check` between batches.

    The optimizer is a new one, and the last batch of a pass may be smaller. Of the protocol's further settings this knows none: a
    worker that says so gets no task with them.
    """
    trainer.begin(training, int(rng.integers(2**31)))
    steps, loss, correct, size = 0, 0.0, 0, training["batch_size"]
    for _ in range(training["local_epochs"]):
        order = rng.permutation(indices)
        for start in range(0, len(order), size):
            check()
            batch = dataset.batch(dataset.train, order[start : start + size], rng if training["augment"] else None)
            batch_loss, batch_correct = trainer.step(*batch)
            steps, loss, correct = steps + 1, loss + batch_loss, correct + batch_correct
    seen = max(1, len(indices) * training["local_epochs"])
    return steps, {"train_loss": loss / seen, "train_accuracy": correct / seen}


def evaluate(trainer, dataset, indices, check, size=500):
    loss, correct = 0.0, 0
    for start in range(0, len(indices), size):
        check()
        batch_loss, batch_correct = trainer.measure(*dataset.batch(dataset.test, indices[start : start + size]))
        loss, correct = loss + batch_loss, correct + batch_correct
    count = max(1, len(indices))
    return {"loss": loss / count, "accuracy": correct / count, "examples": len(indices)}


class NumpyTrainer:
    """A trainer whose model is written out in a subclass: `forward` and `gradients`.

    Losses are sums over the examples, as for every trainer here.
    """

    device = "numpy"

    def load(self, name, dataset, parameters):
        """Makes the model called `name` for the dataset's examples, with these parameters."""
        self.values = {key: value.copy() for key, value in parameters.items()}

    def parameters(self):
        return self.values

    def trainable(self):
        """The names of what is optimized; all else are statistics."""
        return [key for key in self.values if not key.endswith(("running_mean", "running_var"))]

    def correct(self, objective, start):
        """From now on, gradients get what the objective adds; `start` is the global model."""
        self.objective, self.start, self.shift = objective, start, objective.shift()

    def corrected(self, key, gradient):
        if self.objective.pull:
            gradient = gradient + self.objective.pull * (self.values[key] - self.start[key])
        return gradient + self.shift[key] if key in self.shift else gradient

    def measure(self, inputs, labels):
        """The loss and the number of right answers."""
        logits = self.forward(inputs)
        return loss_of(logits, labels)[0], int((logits.argmax(1) == labels).sum())

    def begin(self, training, seed):
        self.training, self.steps = training, 0
        self.first = {key: np.zeros_like(value) for key, value in self.values.items()}
        self.second = {key: np.zeros_like(value) for key, value in self.values.items()}

    def step(self, inputs, labels):
        gradients, loss, correct = self.gradients(inputs, labels)
        self.steps += 1
        for key, gradient in gradients.items():
            value = self.values[key]
            gradient = self.corrected(key, gradient)
            value -= self.training["lr"] * self.direction(key, gradient + self.training["weight_decay"] * value)
        return loss, correct

    def direction(self, key, gradient):
        """As in `torch.optim`: SGD without dampening and not Nesterov's; Adam with its usual constants."""
        first, second = self.first[key], self.second[key]
        if self.training["optimizer"] == "sgd":
            first *= self.training["momentum"]
            first += gradient
            return first
        first += (1 - 0.9) * (gradient - first)
        second += (1 - 0.999) * (gradient**2 - second)
        return first / (1 - 0.9**self.steps) / (np.sqrt(second / (1 - 0.999**self.steps)) + 1e-8)


def loss_of(logits, labels):
    """The sum of the cross-entropies, and its gradient."""
    logits = logits - logits.max(1, keepdims=True)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    loss = -log_probabilities[np.arange(len(labels)), labels].sum()
    error = np.exp(log_probabilities)
    error[np.arange(len(labels)), labels] -= 1
    return float(loss), error


class NumpyMlp(NumpyTrainer):
    """The crate's `mlp`."""

    def load(self, name, dataset, parameters):
        if name != "mlp":
            raise ValueError(f"the NumPy trainer knows the model mlp alone, not {name}; see --trainer torch")
        super().load(name, dataset, parameters)

    def forward(self, images):
        self.inputs = images.reshape(len(images), -1)
        self.hidden = np.maximum(self.inputs @ self.values["fc1.weight"].T + self.values["fc1.bias"], 0)
        return self.hidden @ self.values["fc2.weight"].T + self.values["fc2.bias"]

    def gradients(self, images, labels):
        logits = self.forward(images)
        loss, error = loss_of(logits, labels)
        error /= len(labels)  # The gradient is that of the mean.
        gradients = {"fc2.weight": error.T @ self.hidden, "fc2.bias": error.sum(0)}
        error = error @ self.values["fc2.weight"] * (self.hidden > 0)
        gradients.update({"fc1.weight": error.T @ self.inputs, "fc1.bias": error.sum(0)})
        return gradients, loss, int((logits.argmax(1) == labels).sum())


def module_of_crate(name, dataset):
    """The crate's model called `name`, in PyTorch."""
    import torch  # Here, since the NumPy trainer does without.

    _, channels, height, width = dataset.train[0].shape
    return torch_module(torch.nn, name, channels, height, width)


class TorchTrainer:
    """Trains a PyTorch module, on a CUDA device if there is one. `build(name, dataset)` makes the module of a job's model.

    It minimises the cross-entropy; for another loss, override `loss`.
    """

    def __init__(self, build=module_of_crate):
        import torch

        self.torch, self.build = torch, build
        self.device = "cuda" if torch.cuda.is_available() else "cpu"

    def load(self, name, dataset, parameters):
        self.module = self.build(name, dataset).to(self.device)
        values = {key: self.torch.tensor(value) for key, value in parameters.items()}
        missing, unexpected = self.module.load_state_dict(values, strict=False)
        state = self.module.state_dict()
        loaded = {state[key].data_ptr() for key in values if key in state}
        # Only floating-point tensors travel (PyTorch's count of BatchNorm's batches, for example, does not), and of tied
        # tensors only one.
        missing = [key for key in missing if state[key].is_floating_point() and state[key].data_ptr() not in loaded]
        if missing or unexpected:
            raise ValueError(f"not the parameters of {name}: missing {missing}, unexpected {unexpected}")

    def parameters(self):
        values = self.module.state_dict().items()
        return {key: value.float().cpu().numpy() for key, value in values if value.is_floating_point()}

    def trainable(self):
        return [name for name, _ in self.module.named_parameters()]

    def correct(self, objective, start):
        """As `NumpyTrainer.correct`."""

        def on_device(values):
            return {key: self.torch.tensor(value, device=self.device) for key, value in values.items()}

        self.objective, self.start, self.shift = objective, on_device(start), on_device(objective.shift())

    def loss(self, inputs, labels):
        """The mean loss of a batch, which is minimised, and the number of right answers."""
        logits = self.module(self.torch.from_numpy(inputs).to(self.device))
        labels = self.torch.from_numpy(labels).to(self.device)
        return self.torch.nn.functional.cross_entropy(logits, labels), (logits.argmax(1) == labels).sum()

    def measure(self, inputs, labels):
        self.module.eval()
        with self.torch.no_grad():
            loss, correct = self.loss(inputs, labels)
        return loss.item() * len(labels), correct.item()

    def begin(self, training, seed):
        self.torch.manual_seed(seed)  # Of the dropout.
        options = {"lr": training["lr"], "weight_decay": training["weight_decay"]}
        if training["optimizer"] == "sgd":
            self.optimizer = self.torch.optim.SGD(self.module.parameters(), momentum=training["momentum"], **options)
        else:
            self.optimizer = self.torch.optim.Adam(self.module.parameters(), **options)

    def step(self, inputs, labels):
        self.module.train()
        self.optimizer.zero_grad()
        loss, correct = self.loss(inputs, labels)
        loss.backward()
        for name, parameter in self.module.named_parameters():
            if parameter.grad is not None and self.objective.pull:
                parameter.grad += self.objective.pull * (parameter.detach() - self.start[name])
            if parameter.grad is not None and name in self.shift:
                parameter.grad += self.shift[name]
        self.optimizer.step()
        return loss.item() * len(labels), correct.item()


def torch_module(nn, name, channels, height, width):
    """The model called `name`, for ten classes. Layers with parameters have the crate's names."""
    shape = (channels, height, width)

    def convolution(number, inputs, outputs):
        layer = nn.Conv2d(inputs, outputs, 3, padding=1)
        return [(f"conv{number}", layer), (f"bn{number}", nn.BatchNorm2d(outputs)), nn.ReLU()]

    if name == "mlp":
        layers = [nn.Flatten(), ("fc1", nn.Linear(channels * height * width, 128)), nn.ReLU(), ("fc2", nn.Linear(128, 10))]
    elif name == "lenet" and height == width >= 16:
        side = ((height - 4) // 2 - 4) // 2
        layers = [("conv1", nn.Conv2d(channels, 6, 5)), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [("conv2", nn.Conv2d(6, 16, 5)), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        layers += [("fc1", nn.Linear(16 * side * side, 120)), nn.ReLU(), ("fc2", nn.Linear(120, 84)), nn.ReLU()]
        layers += [("fc3", nn.Linear(84, 10))]
    elif name == "cifar_cnn" and shape == (3, 32, 32):
        layers = convolution(1, 3, 32) + convolution(2, 32, 64) + [nn.MaxPool2d(2)]
        layers += convolution(3, 64, 128) + [nn.MaxPool2d(2), nn.Flatten()]
        layers += [("fc1", nn.Linear(8192, 256)), nn.ReLU(), nn.Dropout(0.5), ("fc2", nn.Linear(256, 10))]
    elif name == "tiny_cnn" and shape == (1, 8, 8):
        layers = convolution(1, 1, 8) + [nn.MaxPool2d(2)]
        layers += convolution(2, 8, 16) + [nn.MaxPool2d(2), nn.Flatten()]
        layers += [("fc1", nn.Linear(64, 32)), nn.ReLU(), nn.Dropout(0.25), ("fc2", nn.Linear(32, 10))]
    else:
        raise ValueError(f"no model {name} for images of {shape}")
    named = (layer if isinstance(layer, tuple) else (str(at), layer) for at, layer in enumerate(layers))
    return nn.Sequential(collections.OrderedDict(named))


@dataclasses.dataclass
class Dataset:
    """Images of shape `[examples, channels, height, width]` in bytes with their labels, and how they become inputs."""

    name: str
    train: tuple
    test: tuple
    largest: int
    mean: list
    std: list
    padding: int = 0  # Of the augmentation by flip and padded crop; none where that is not usual.
    classes: int = 10

    def info(self):
        """For the registration."""
        sizes = {"train_examples": self.count(self.train), "test_examples": self.count(self.test)}
        return {"name": self.name, "fingerprint": self.fingerprint, **sizes}

    def count(self, split):
        return len(split[1])

    @functools.cached_property
    def fingerprint(self):
        """SHA-256 over the fingerprints of both splits, all in hexadecimal."""
        return hashlib.sha256("".join(map(self.fingerprint_of, (self.train, self.test))).encode()).hexdigest()

    def fingerprint_of(self, split):
        """SHA-256 over sizes, labels and pixels, as little-endian integers of 64, 16 and 8 bits."""
        images, labels = split
        digest = hashlib.sha256(b"fedavg image set 1\n")
        digest.update(struct.pack("<5Q", *images.shape[1:], self.classes, len(labels)))
        digest.update(labels.astype("<u2").tobytes())
        digest.update(images.tobytes())
        return digest.hexdigest()

    def batch(self, split, indices, rng=None):
        """The images at `indices`, normalised, and their labels; varied by draws from `rng` where there is one."""
        images, labels = split[0][indices], split[1][indices].astype(np.int64)
        if rng is not None and self.padding:
            images = self.augmented(images, rng)
        mean, std = (np.array(values, np.float32).reshape(1, -1, 1, 1) for values in (self.mean, self.std))
        return (images.astype(np.float32) / np.float32(self.largest) - mean) / std, labels

    def augmented(self, images, rng):
        """Each image flipped with probability 1/2, and cut at random out of itself in a black frame."""
        count, _, height, width = images.shape
        framed = np.pad(images, [(0, 0), (0, 0), (self.padding,) * 2, (self.padding,) * 2])
        places = rng.integers(0, 2 * self.padding + 1, (count, 2))
        cuts = [image[:, y : y + height, x : x + width] for image, (y, x) in zip(framed, places)]
        return np.stack([cut[:, :, ::-1] if flip else cut for cut, flip in zip(cuts, rng.integers(0, 2, count))])


class OwnData:
    """Data of this worker's own: two map-style datasets, such as `torch.utils.data.Dataset`.

    `split[index]` is an input, as an array or a tensor, and its label, a class from 0.
    """

    def __init__(self, name, train, test):
        self.name, self.train, self.test = name, train, test

    def info(self):
        """For the registration. No other worker has the same data, so that there is no fingerprint to compare."""
        return {"name": self.name, "fingerprint": "own", "train_examples": len(self.train), "test_examples": len(self.test)}

    def count(self, split):
        return len(split)

    def batch(self, split, indices, rng=None):
        """The inputs and the labels at `indices`. Augmentation is the dataset's own business."""
        inputs, labels = zip(*(split[int(index)] for index in indices))
        return np.stack([np.asarray(value, np.float32) for value in inputs]), np.array([int(label) for label in labels])


def read_digits(path):
    """The crate's `src/data/digits.bin`: a label and 8 x 8 pixels each. Every fifth image of a class is a test image."""
    records = np.fromfile(path, np.uint8).reshape(-1, 65)
    labels = records[:, 0]
    place = np.zeros(len(labels), int)
    for digit in range(10):
        place[labels == digit] = np.arange(1, np.count_nonzero(labels == digit) + 1)
    images, test = records[:, 1:].reshape(-1, 1, 8, 8), place % 5 == 0
    return Dataset("digits", (images[~test], labels[~test]), (images[test], labels[test]), 16, [0.3051], [0.3762])


def read_cifar10(folder):
    """CIFAR-10 from `cifar-10-batches-bin`, or the folder around it: a label and 3 x 32 x 32 pixels each."""
    inner = folder / "cifar-10-batches-bin"
    folder = inner if inner.is_dir() else folder

    def read(*names):
        records = np.concatenate([np.fromfile(folder / name, np.uint8) for name in names]).reshape(-1, 3073)
        return np.ascontiguousarray(records[:, 1:]).reshape(-1, 3, 32, 32), records[:, 0]

    train, test = read(*(f"data_batch_{number}.bin" for number in range(1, 6))), read("test_batch.bin")
    return Dataset("cifar10", train, test, 255, [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616], padding=4)
