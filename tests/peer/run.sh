#!/bin/sh
# Measures Troupe beside PyTorch on this machine: training, generation, matrix products.
# $PYTHON, python3 if unset, needs the packages of requirements.txt. Let nothing else run meanwhile.
# Arguments go to peer.py: `run.sh --markdown tables.md`, `run.sh --jobs k2-nano --only training`.
# $TROUPE is the program to measure; a release build if unset.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ -z "${TROUPE:-}" ]; then
    cargo build --release --manifest-path "$here/../../Cargo.toml" -p troupe-jobs --bin troupe
    TROUPE="${CARGO_TARGET_DIR:-$here/../../target}/release/troupe"
fi
exec "${PYTHON:-python3}" "$here/peer.py" --troupe "$TROUPE" "$@"
