#!/bin/sh
# Trains k2-nano with Troupe and with PyTorch on the same text and draws the losses: curves.py.
# $PYTHON, python3 if unset, needs the packages of requirements.txt.
# Arguments go to curves.py: `curves.sh --to runs/curves --steps 500`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# Both of one tree: the text is that of the dependencies they were built from.
cargo build --release --manifest-path "$here/../../Cargo.toml" -p troupe-jobs --bin troupe --example steps
built="${CARGO_TARGET_DIR:-$here/../../target}/release"
exec "${PYTHON:-python3}" "$here/curves.py" --troupe "$built/troupe" --steps-of "$built/examples/steps" "$@"
