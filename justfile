# Recipes for people; CI runs .ci/run, which `just ci` is.

# Incremental builds: a one-line change builds in seconds instead of minutes. What a user builds stays as Cargo has it.
export CARGO_INCREMENTAL := "1"

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

# Figures are measured on a build as users get it.
bench *ARGS:
    CARGO_INCREMENTAL=0 cargo bench {{ ARGS }}

# Accuracy of tiny_cnn under every encoding against f32; CI runs one seed.
encodings SEEDS="3":
    cargo build --release
    scripts/ci-encodings {{ SEEDS }}

# The examples, each as CI runs it.
examples:
    scripts/ci-examples

# The Python workers with PyTorch against a coordinator built from here, a model of one's own included; PYTHON has torch, numpy
# and safetensors.
pytorch-worker PYTHON="python3":
    scripts/ci-python-worker {{ PYTHON }} torch

# A client in Python, generated from the OpenAPI document, calls a coordinator built from here; CI runs it.
openapi-python:
    cargo build --release --bins
    scripts/ci-openapi python

# Types in TypeScript, generated from the OpenAPI document without a warning (needs Node.js).
openapi-typescript:
    cargo build --release --bins
    scripts/ci-openapi typescript

# What CI runs with LibTorch on the CPU: installs it, all tests, jobs; CIFAR-10 where FEDAVG_DATA has it.
libtorch:
    scripts/ci-libtorch

# docs/quickstart.md's CIFAR-10 job on LibTorch, after `just libtorch`; FEDAVG_DATA has the images.
cifar10-libtorch ROUNDS="4":
    scripts/cifar10-libtorch target/libtorch-current/release {{ ROUNDS }}

# The legacy LibTorch pin: builds in its own folder and trains on the CPU.
libtorch-legacy:
    eval "$(scripts/libtorch legacy --cpu)" && cargo run --release --no-default-features --features libtorch,cli -- simulate --device libtorch

# burn's own GPU backends: builds, and trains on whatever Vulkan there is (Debian: mesa-vulkan-drivers is one in software).
wgpu DEVICE="wgpu":
    CARGO_TARGET_DIR=target/gpu cargo run --release --no-default-features --features wgpu,cli -- simulate --device {{ DEVICE }} --rounds 3
    CARGO_TARGET_DIR=target/gpu cargo test --release --no-default-features --features wgpu,cli --lib twenty

# What a machine with an NVIDIA GPU needs to check this crate (`build`); the same check on this CPU (`try`); `clean`.
gpu-check *ARGS:
    scripts/gpu-check {{ ARGS }}

# The committed fixtures, made again: PYTHON has torch, safetensors and numpy.
fixtures PYTHON="python3":
    {{ PYTHON }} scripts/pytorch_fixtures.py tests/fixtures
    {{ PYTHON }} scripts/local_training_fixtures.py tests/fixtures

# What hostile input costs a coordinator: its memory, and how long an honest worker waits beside it; `just hostile --quick`.
hostile *ARGS:
    cargo build --release --bins
    scripts/hostile {{ ARGS }}

# Kills a thousand coordinators and a thousand workers at random moments; prints the figures and the seeds. About 10 minutes.
chaos SEED="1" KILLS="1000":
    FEDAVG_CHAOS_SEED={{ SEED }} FEDAVG_CHAOS_KILLS={{ KILLS }} cargo test --release --test chaos kills:: -- --nocapture

# Workers and a coordinator of another commit with those from here: jobs, and an upgrade in mid-job.
other-version COMMIT:
    rm -rf target/other-version && git worktree prune
    git worktree add --detach target/other-version {{ COMMIT }}
    CARGO_TARGET_DIR=target cargo build --release --bins --manifest-path target/other-version/Cargo.toml
    mkdir -p target/other && cp target/release/fedavg-coordinator target/release/fedavg-worker target/other/
    git worktree remove --force target/other-version
    FEDAVG_OTHER_VERSION="$PWD/target/other" cargo test --release --test processes versions -- --nocapture

# Aborts a coordinator or a worker before and after each durable step, once each.
kill-points:
    cargo test --release --features testing --test chaos kill_points -- --nocapture

# Fuzz targets with a new seed, SECONDS each; those of safetensors and encodings five times as long. TARGET is a part of a name.
fuzz SECONDS="120" TARGET="fuzz":
    scripts/fuzz {{ SECONDS }} {{ TARGET }}

# Every operation of the API against its OpenAPI document, with each kind of credential; CI runs 3 examples each.
schemathesis EXAMPLES="50" SEED="1":
    cargo build --release --bins
    scripts/ci-schemathesis {{ EXAMPLES }} {{ SEED }}

# Four habits of this code, counted; `just style --places` says where each is.
style *ARGS:
    scripts/style {{ ARGS }}

# The pages: every link leads somewhere, no line is too long.
docs:
    scripts/ci-docs

# Licences, advisories and sources of dependencies (needs cargo-deny).
deny:
    cargo deny check

# Every attack against every reducer on digits, into target/attack-grid: `just attacks --reducers fedavg,fedadam`.
attacks *ARGS:
    cargo run --release --example attack_grid -- --folder target/attack-grid {{ ARGS }}

# The fixture of the attacks, from the papers' formulas; PYTHON has numpy.
attack-fixture PYTHON="python3":
    {{ PYTHON }} scripts/attack_reference.py > tests/fixtures/attacks.json

# DiLoCo beside synchronous AdamW on digits: test losses and bytes.
diloco *ARGS:
    cargo build --release --bins
    scripts/diloco {{ ARGS }}

# The fixture of the strategies, from the papers' formulas; PYTHON has numpy.
strategy-fixture PYTHON="python3":
    {{ PYTHON }} scripts/strategy_reference.py > tests/fixtures/strategies.json

# The fixture of the robust rules, likewise.
reducer-fixture PYTHON="python3":
    {{ PYTHON }} scripts/reducer_reference.py > tests/fixtures/reducers.json
