# Recipes for people; CI runs .ci/run, which `just ci` is.

default:
    @just --list

# What CI runs.
ci:
    bash .ci/run

# The main job: digits, in this process.
simulate *ARGS:
    cargo run --release -- simulate {{ ARGS }}

test:
    cargo test --release

bench *ARGS:
    cargo bench {{ ARGS }}

# The Python worker with PyTorch's trainer against a coordinator built from here; PYTHON has torch and numpy.
pytorch-worker PYTHON="python3":
    scripts/ci-python-worker {{ PYTHON }} torch

# The committed PyTorch fixtures, made again.
fixtures PYTHON="python3":
    {{ PYTHON }} scripts/pytorch_fixtures.py tests/fixtures

# Licences, advisories and sources of dependencies (needs cargo-deny).
deny:
    cargo deny check
