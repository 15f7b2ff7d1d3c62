"""CIFAR-10 in its official binary form as tensors: for the scripts beside this one, which compare PyTorch with the crate.

It reads local files only and downloads nothing. Images are normalised and varied on the device that they are on. It needs torch
alone, since a machine that checks its GPU may have nothing else.
"""

import pathlib

import torch

MEAN = torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)
STD = torch.tensor([0.2470, 0.2435, 0.2616]).view(3, 1, 1)
RECORD = 1 + 3 * 32 * 32


def cifar10(folder, files):
    """The images of `files` as u8 `[N, 3, 32, 32]` and their labels as i64 `[N]`.

    `folder` is `cifar-10-batches-bin` or the folder around it. A file that is not whole records is a `ValueError`.
    """
    folder = pathlib.Path(folder)
    if (folder / "cifar-10-batches-bin").is_dir():
        folder = folder / "cifar-10-batches-bin"
    raw = bytearray(b"".join((folder / name).read_bytes() for name in files))
    if len(raw) == 0 or len(raw) % RECORD:
        raise ValueError(f"{folder}: {len(raw)} bytes are no whole number of {RECORD}-byte records")
    records = torch.frombuffer(raw, dtype=torch.uint8).view(-1, RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].long()


def cifar10_train(folder):
    return cifar10(folder, [f"data_batch_{i}.bin" for i in range(1, 6)])


def cifar10_test(folder):
    return cifar10(folder, ["test_batch.bin"])


def normalise(images):
    """u8 pixels -> f32, divided by 255, less the channel's mean, over its standard deviation."""
    return (images.float() / 255 - MEAN.to(images.device)) / STD.to(images.device)


def augment(images, generator):
    """Each u8 image flipped with probability 1/2 and cut at random out of itself in a black frame of 4 pixels.

    `generator` is one of the CPU, wherever the images are.
    """
    count, device = len(images), images.device
    flip = (torch.rand(count, generator=generator) < 0.5).to(device)
    images = torch.where(flip.view(-1, 1, 1, 1), images.flip(3), images)
    framed = torch.nn.functional.pad(images, (4, 4, 4, 4))
    top, left = torch.randint(0, 9, (2, count, 1), generator=generator).to(device)
    side = torch.arange(32, device=device)
    rows, columns = top + side, left + side
    index = torch.arange(count, device=device).view(-1, 1, 1)
    return framed.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def evaluate(model, images, labels, batch_size=500):
    """Accuracy and mean cross-entropy of `model` in eval mode; it is left in eval mode."""
    model.eval()
    correct, loss = 0, 0.0
    with torch.no_grad():
        for batch, target in zip(images.split(batch_size), labels.split(batch_size)):
            logits = model(normalise(batch))
            correct += (logits.argmax(1) == target).sum().item()
            loss += torch.nn.functional.cross_entropy(logits, target, reduction="sum").item()
    return correct / len(labels), loss / len(labels)
