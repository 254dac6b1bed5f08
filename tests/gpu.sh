#!/usr/bin/env bash
# Checks every kernel of this machine's GPU against the CPU, then times each against its floor.
#
#   tests/gpu.sh [FOLDER]
#
# The machine needs an NVIDIA driver for CUDA 12.8 or newer, NVRTC and cuBLASLt (of a CUDA toolkit,
# or `pip install nvidia-cuda-nvrtc nvidia-cublas`, found below), NCCL if messages between GPUs are
# to be checked (`nvidia-nccl-cu13`), and no Rust: `troupe-gpu` is taken from FOLDER, or from beside
# this script, or from target/release, or else built there. The full output is kept in FOLDER, or in
# OUT where that is set.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here}
out=${OUT:-$folder}

for program in "$folder/troupe-gpu" "$here/../target/release/troupe-gpu"; do
    [ -x "$program" ] && break
done
if [ ! -x "$program" ]; then
    command -v cargo >/dev/null || { echo "no troupe-gpu in $folder, and no cargo" >&2; exit 1; }
    cargo build --release --manifest-path "$here/../Cargo.toml" -p troupe-kernels --bin troupe-gpu
fi

# PyPI's libraries lie in folders of their own that the loader does not know.
if command -v python3 >/dev/null; then
    folders=$(python3 - <<'PYTHON'
import glob, os, site
found = [f for root in site.getsitepackages() for f in glob.glob(root + "/nvidia/*/lib")]
print(":".join(found))
PYTHON
    )
    export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folders"
fi

"$program" check 2>&1 | tee "$out/gpu-check.txt"
if grep -q "no GPU: an emulation" "$out/gpu-check.txt"; then
    echo "this is the emulation of the driver; times would say nothing"
    exit
fi
"$program" time 2>&1 | tee "$out/gpu-time.txt"
