"""The crate's model zoo as PyTorch modules.

The names of the parameters are the crate's names, so `state_dict()` and a model file of the crate have the same keys and
shapes. These modules exist to compare against; nothing here may gain a layer or a name that `src/model/zoo/` lacks.
"""

import torch
from torch import nn
from torch.nn import functional as F


class Mlp(nn.Module):
    """One hidden layer on flattened examples: `[N, ...]` with `inputs` values each -> `[N, classes]` logits."""

    def __init__(self, inputs, classes, hidden=128):
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, classes)

    def forward(self, x):
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class LeNet(nn.Module):
    """LeCun et al. 1998 with ReLU and max pooling: `[N, channels, side, side]` -> `[N, classes]` logits.

    No padding. 3 x 32 x 32 with 10 classes has 62 006 parameters; sides below 16 leave nothing to classify.
    """

    def __init__(self, channels, side, classes):
        super().__init__()
        after = ((side - 4) // 2 - 4) // 2
        if after < 1:
            raise ValueError(f"lenet needs a side of at least 16 pixels, not {side}")
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * after * after, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))


class CifarCnn(nn.Module):
    """Three convolutions with BatchNorm, pooled after the second and the third: `[N, 3, 32, 32]` -> `[N, 10]` logits."""

    def __init__(self, dropout=0.5):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(64)
        self.conv3 = nn.Conv2d(64, 128, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(128)
        self.fc1 = nn.Linear(8192, 256)
        self.fc2 = nn.Linear(256, 10)
        self.dropout = dropout

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.max_pool2d(F.relu(self.bn3(self.conv3(x))), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc2(F.dropout(x, self.dropout, self.training))


class TinyCnn(nn.Module):
    """Every kind of layer of `CifarCnn` at the size of a test: `[N, 1, 8, 8]` -> `[N, 10]` logits."""

    def __init__(self, dropout=0.25):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(16)
        self.fc1 = nn.Linear(64, 32)
        self.fc2 = nn.Linear(32, 10)
        self.dropout = dropout

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc2(F.dropout(x, self.dropout, self.training))


def build(name, shape, classes=10):
    """The model called `name` for examples of `shape` (channels, height, width), freshly initialised.

    `cifar_cnn` and `tiny_cnn` have one input shape and ten classes; any other request for them is a `ValueError`.
    """
    channels, height, width = shape
    fixed = {"cifar_cnn": (CifarCnn, (3, 32, 32)), "tiny_cnn": (TinyCnn, (1, 8, 8))}
    if name == "mlp":
        return Mlp(channels * height * width, classes)
    if name == "lenet" and height == width:
        return LeNet(channels, height, classes)
    if name in fixed and fixed[name][1] == tuple(shape) and classes == 10:
        return fixed[name][0]()
    raise ValueError(f"there is no model {name!r} for examples of shape {tuple(shape)} and {classes} classes")


def learnable(model):
    """How many values an optimizer would change."""
    return sum(p.numel() for p in model.parameters())


if __name__ == "__main__":
    for name, shape in [("mlp", (1, 8, 8)), ("lenet", (3, 32, 32)), ("cifar_cnn", (3, 32, 32)), ("tiny_cnn", (1, 8, 8))]:
        model = build(name, shape)
        logits = model(torch.zeros(2, *shape))
        print(f"{name}: {shape} -> {tuple(logits.shape[1:])}, {learnable(model)} trainable parameters")
        for key, value in model.state_dict().items():
            print(f"  {key}: {list(value.shape)} {value.dtype}")
