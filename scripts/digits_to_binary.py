#!/usr/bin/env python3
"""Turn scikit-learn's copy of the UCI handwritten digits into src/data/digits.bin.

    pip download --no-deps scikit-learn
    unzip -j scikit_learn-*.whl sklearn/datasets/data/digits.csv.gz
    python3 scripts/digits_to_binary.py digits.csv.gz src/data/digits.bin

The output holds 1797 records of 65 bytes, in the order of the input: one byte for the label (0 to 9), then the 64 pixels
of the 8 x 8 image, row by row, each 0 to 16. It needs Python 3 alone.
"""

import gzip
import sys


def main(source, target):
    records = bytearray()
    with gzip.open(source, "rt", encoding="ascii") as lines:
        for line in lines:
            *pixels, label = (int(float(value)) for value in line.split(","))
            if len(pixels) != 64 or not all(0 <= p <= 16 for p in pixels) or not 0 <= label <= 9:
                sys.exit(f"unexpected line: {line!r}")
            records.append(label)
            records.extend(pixels)
    if len(records) != 1797 * 65:
        sys.exit(f"expected 1797 images, found {len(records) // 65}")
    with open(target, "wb") as out:
        out.write(records)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
