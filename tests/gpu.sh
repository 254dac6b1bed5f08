#!/usr/bin/env bash
# Checks Troupe on this machine's GPU against the CPU, then measures it, also beside PyTorch.
#
#   tests/gpu.sh gather FOLDER   builds all that the machine needs and puts it into FOLDER
#   tests/gpu.sh [FOLDER]        checks and measures with what is in FOLDER
#
# The machine needs an NVIDIA driver for CUDA 12.8 or newer, NVRTC and cuBLASLt (of a CUDA toolkit,
# or `pip install nvidia-cuda-nvrtc nvidia-cublas`, found below), NCCL if messages between GPUs are
# to be checked (`nvidia-nccl-cu13`), and no Rust. For the comparison $PYTHON, python3 if unset,
# needs the packages of tests/peer/requirements.txt. What is missing, but for one program, lets the
# parts that need it be skipped, and the table says so. Without FOLDER the programs are those beside
# this script, or they are built. Texts to train on are the files in FOLDER/text. All output is kept
# in OUT, FOLDER if unset; the table at the end is also in gpu-summary.md. The status is 1 if
# anything failed; speed is measured only if all is right.
#
# LIMIT is the most seconds of a program, an hour if unset; the comparison has limits of its own.
# CHECKS_ONLY=1 leaves out what is measured.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
limit=${LIMIT:-3600}

# Release builds of the programs, and what this script reads; Rust sources are the texts.
gather() (
    to=$1
    cd "$here/.."
    release=${CARGO_TARGET_DIR:-target}/release
    cargo build --release -p troupe-jobs --bin troupe
    cargo build --release -p troupe-kernels --bin troupe-gpu
    on_gpu=$(cargo test --release -p troupe-ops --test on_gpu --no-run 2>&1 | tee /dev/stderr |
        sed -n 's/.*Executable.*(\(.*\))$/\1/p')
    mkdir -p "$to/text"
    cp "$on_gpu" "$to/on_gpu"
    cp "$release/troupe" "$release/troupe-gpu" tests/gpu.sh "$to"
    cp -r tests/jobs tests/peer tests/reference "$to"
    find kernels ops graphs runtime jobs -name '*.rs' | while read -r file; do
        cp "$file" "$to/text/${file//\//-}"
    done
)

if [ "${1:-}" = gather ]; then
    mkdir -p "${2:?a folder is missing}"
    gather "$(cd "$2" && pwd)"
    exit
fi
folder=$(cd "${1:-$here}" && pwd)
if [ $# = 0 ] && [ ! -x "$here/troupe-gpu" ]; then
    command -v cargo >/dev/null || { echo "no programs beside $0, and no cargo" >&2; exit 1; }
    folder=$(cd "$here/.." && pwd)/target/gpu
    mkdir -p "$folder"
    gather "$folder"
fi
out=${OUT:-$folder}
mkdir -p "$out"
out=$(cd "$out" && pwd)
troupe=$folder/troupe troupe_gpu=$folder/troupe-gpu on_gpu=$folder/on_gpu
jobs=$folder/jobs peer=$folder/peer
[ -d "$jobs" ] || jobs=$here/jobs peer=$here/peer

# PyPI's libraries lie in folders of their own that the loader does not know.
if command -v "$python" >/dev/null; then
    folders=$("$python" - <<'PYTHON'
import glob, site
found = [f for root in site.getsitepackages() for f in glob.glob(root + "/nvidia/*/lib")]
print(":".join(found))
PYTHON
    )
    export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folders"
fi

rows=() failed=0

# A line of the table: part, outcome, in short.
row() { rows+=("| $1 | $2 | $3 |"); }

skipped() {
    echo "== $1: skipped, $2"
    row "$1" skipped "$2"
}

# A command for LIMIT seconds at most.
bound() { timeout "$limit" "$@"; }

# Runs `part NAME FILE COMMAND..`, keeps its output, and notes whether it went well.
part() {
    local name=$1 file=$out/$2 begin=$SECONDS status=0 short
    shift 2
    echo "== $name"
    "$@" 2>&1 | tee "$file" || status=${PIPESTATUS[0]}
    short=$(grep -v '^ *$' "$file" | tail -n 1 | tr '|' '/' | cut -c 1-140) || short="no word"
    [ "$status" != 124 ] || short="not done after $limit s"
    if [ "$status" = 0 ]; then
        row "$name" passed "$short ($((SECONDS - begin)) s)"
    else
        row "$name" FAILED "$short (status $status)"
        failed=1
    fi
}

# Whether a program is there; else the part is skipped.
there() {
    [ -x "$2" ] && return
    skipped "$1" "there is no ${2##*/} in $folder"
    return 1
}

# Losses of a run, one a line.
losses() { sed -n 's/.*"loss":\([-0-9.e+]*\).*/\1/p' "$1/metrics.jsonl"; }

# Trains on the GPU and on the CPU and says how far the losses are apart:
# `compare JOB PRECISION STEPS EARLY LATE`.
#
# Rounding differs, so losses do: at first by no more than it, later as two runs with other random
# numbers do, since a token that goes to another expert changes all that comes after. So each loss
# of the first 20 steps is held against EARLY, relative to it, and the mean of the last 20 to LATE.
# Two kinds of instructions of a CPU in BF16 (`dot` and `avx512`, 100 steps of k2-nano) were 1.8e-4,
# 4.3e-4 in the mean and 3.3e-3 in the worst step apart; what is allowed is some ten times that.
compare() {
    local job=$1 precision=$2 steps=$3 early=$4 late=$5 device
    for device in Gpu Cpu; do
        local dir=$out/losses-${job##*/}-$precision-$device
        rm -rf "$dir"
        bound "$troupe" run "$job" --plan one --quiet --data "$text" --dir "$dir" --set "device=$device" \
            --set "precision=$precision" --set "stop=Steps($steps)" > "$dir.log" 2>&1 || {
            tail -n 5 "$dir.log"
            return 1
        }
        losses "$dir" > "$dir.txt"
    done
    local pair=$out/losses-${job##*/}-$precision
    paste "$pair-Gpu.txt" "$pair-Cpu.txt" | awk -v steps="$steps" -v early="$early" -v late="$late" '
        function abs(x) { return x < 0 ? -x : x }
        BEGIN { print "step  GPU  CPU  difference" }
        !/^[0-9.]+(e-?[0-9]+)?\t[0-9.]+(e-?[0-9]+)?$/ { print "no losses at step " NR; lost = 1; exit }
        {
            apart = abs($1 - $2) / $2
            printf "%4d  %.6f  %.6f  %.1e\n", NR, $1, $2, apart
            gpu[NR] = $1; cpu[NR] = $2
            if (most < apart) most = apart
            if (NR <= 20 && first < apart) first = apart
            if (NR <= 20 && early < apart) bad = 1
        }
        END {
            if (lost) exit 1
            from = NR > 20 ? NR - 19 : 1
            for (i = from; i <= NR; i++) { g += gpu[i]; c += cpu[i] }
            end = c > 0 ? abs(g - c) / c : -1
            if (NR != steps || end < 0 || late < end) bad = 1
            printf "%d losses, apart at most %.1e of the first 20 (allowed %.0e), ", NR, first, early
            printf "%.1e of all, %.1e in the mean of the last 20 (%.0e)\n", most, end, late
            exit bad
        }'
}

# A program under a checker of memory accesses or races. What lies in the arena is one piece of
# memory to it, so it sees what leaves the arena, shared memory, and launches that are not lawful.
sanitized() {
    local name=$1 file=$2 tool=$3
    shift 3
    if command -v compute-sanitizer >/dev/null; then
        part "$name" "$file" bound compute-sanitizer --tool "$tool" --error-exitcode 9 "$@"
    else
        skipped "$name" "compute-sanitizer is not installed"
    fi
}

kernels() {
    there "every kernel against the CPU" "$troupe_gpu" || return 0
    part "every kernel against the CPU" gpu-check.txt bound "$troupe_gpu" check
    sanitized "kernels, memcheck" memcheck-kernels.txt memcheck "$troupe_gpu" check
    sanitized "kernels, racecheck" racecheck-kernels.txt racecheck "$troupe_gpu" check 1 brief
}

operators() {
    there "every operator against the CPU" "$on_gpu" || return 0
    # It would look for an emulation where there is no GPU.
    export TROUPE_CHECKS_OPERATORS=1
    part "every operator against the CPU" operators.txt bound "$on_gpu"
    sanitized "operators, memcheck" memcheck-operators.txt memcheck "$on_gpu"
}

# `verify FILE JOB PLANS PRECISION STEPS`, all plans of the job if PLANS is empty.
verify() {
    local file=$1 job=$2 plans=$3 precision=$4 steps=$5
    part "equal bits of the plans of ${job##*/}, $precision" "$file" bound "$troupe" verify "$job" \
        ${plans:+--plans "$plans"} --steps "$steps" --data "$text" \
        --set device=Gpu --set "precision=$precision"
}

# Plans have equal bits, and losses are the CPU's but for rounding.
training() {
    there "plans and losses" "$troupe" || return 0
    local text=$folder/text small=one,wide,held,offload,all
    [ -d "$text" ] || text=$here/../kernels/src
    [ -d "$text" ] || { skipped "plans and losses" "there is no $folder/text"; return; }
    if is_emulation; then
        verify verify-gpu-F32.txt "$jobs/gpu.ron" "$small" F32 2
        part "losses of gpu.ron, F32" losses-gpu-F32.txt \
            compare "$jobs/gpu.ron" F32 4 2e-3 1e-2
        return
    fi
    local precision
    for precision in F32 Bf16; do
        verify "verify-gpu-$precision.txt" "$jobs/gpu.ron" "$small" "$precision" 3
        verify "verify-nano-$precision.txt" k2-nano "" "$precision" 3
    done
    part "losses of k2-nano, F32" losses-nano-F32.txt compare k2-nano F32 100 2e-3 1e-2
    part "losses of k2-nano, BF16" losses-nano-Bf16.txt compare k2-nano Bf16 100 2e-3 1e-2
}

is_emulation() { grep -qs "no GPU: an emulation" "$out/doctor.txt" "$out/gpu-check.txt"; }

# Each kernel's share of its floor, from what `troupe-gpu time` printed.
shares() {
    printf '\n| kernel | us | floor, us | share of the floor |\n|---|---|---|---|\n'
    awk '$NF ~ /^[0-9]+%$/ {
        name = substr($0, 1, 28); sub(/ +$/, "", name)
        printf "| %s | %s | %s | %s |\n", name, $(NF - 2), $(NF - 1), $NF
    }' "$out/gpu-time.txt"
}

# `alone JOB SEQUENCES CONTEXT MICROBATCH`: training without anything beside it.
alone() {
    part "speed of ${1##*/}" "bench-${1##*/}.txt" bound "$troupe" bench "$1" --plan one \
        --sequences "$2" --context "$3" --set "plan.microbatch=$4" \
        --set device=Gpu --set precision=Bf16
}

beside_pytorch() {
    local name="training beside PyTorch"
    if ! "$python" -c 'import torch, transformers; torch.zeros(1, device="cuda")' \
        2> "$out/pytorch.txt"; then
        skipped "$name" "$(tail -n 1 "$out/pytorch.txt" | tr '|' '/' | cut -c 1-100)"
        alone k2-mini 32 512 8
        alone "$jobs/moe-2b.ron" 8 4096 2
        return
    fi
    part "$name" training.txt "$python" "$peer/gpu.py" --troupe "$troupe" --to "$out"
}

timed() { bound "$troupe_gpu" time && echo "shares of the floors are below"; }

speed() {
    [ ! -x "$troupe_gpu" ] || part "kernels, timed" gpu-time.txt timed
    [ ! -x "$troupe" ] || beside_pytorch
}

summary() {
    grep -hm 1 -e '^GPU ' -e '^NVIDIA ' "$out/doctor.txt" "$out/gpu-check.txt" 2>/dev/null || true
    printf '\n| part | outcome | in short |\n|---|---|---|\n'
    printf '%s\n' "${rows[@]}"
    [ ! -s "$out/gpu-time.txt" ] || shares
    [ ! -s "$out/gpu-training.md" ] || { echo; cat "$out/gpu-training.md"; }
}

# Of another time.
rm -f "$out"/{doctor,gpu-check,gpu-time}.txt "$out"/gpu-{training,summary}.md
[ -x "$troupe" ] || [ -x "$troupe_gpu" ] || { echo "no programs in $folder" >&2; exit 1; }
if there "troupe doctor" "$troupe"; then
    part "troupe doctor" doctor.txt bound "$troupe" doctor
fi
kernels
operators
training
if [ "$failed" = 1 ]; then
    row "speed" skipped "what is wrong need not be quick"
elif is_emulation; then
    row "speed" skipped "this is the emulation of the driver; times would say nothing"
elif [ -z "${CHECKS_ONLY:-}" ]; then
    speed
fi
summary | tee "$out/gpu-summary.md"
exit "$failed"
