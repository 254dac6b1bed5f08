#!/bin/sh
# Compares Troupe with PyTorch, and lets PyTorch run Troupe's schedules; exits with 1 if they differ.
# $PYTHON, python3 if unset, needs the packages of requirements.txt.
# Arguments go to check.py: `run.sh --bless` rewrites the golden files.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo run --manifest-path "$here/../../Cargo.toml" -p troupe-jobs --example reference -- "$work"
"${PYTHON:-python3}" "$here/check.py" "$work" "$@"
cargo build --manifest-path "$here/../../Cargo.toml" -p troupe-jobs --bin troupe
"${PYTHON:-python3}" "$here/schedules.py" "${CARGO_TARGET_DIR:-$here/../../target}/debug/troupe"
