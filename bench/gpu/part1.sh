#!/usr/bin/env bash
# Runs kernels, parity and mask; then scan, network and profile or, if parity failed, the sanitizer.
# See prepare.sh.
set -u
export PYTHONUNBUFFERED=1
gpu="python3 bench/gpu/measure.py --quick --timeout 150"
say() { echo "=== [$SECONDS s] $*"; }

nvidia-smi -L
mkdir -p ~/rtx
cp -f .gpu1/rtx.* ~/rtx/ 2>/dev/null
cp -r .gpu1/mamba ~/mamba
job="{\"part\": \"warm\", \"result\": \"$OUT/warm.json\", \"mamba_ssm\": \"$HOME/mamba\"}"
timeout 240 python3 bench/gpu/worker.py "$job" >"$OUT/warm.log" 2>&1 &
warm=$!
say kernels, parity, mask
$gpu --parts kernels parity mask -o "$OUT/parity.json"
if ! grep -A 1 '"parity": {' "$OUT/parity.json" | grep -q '"status": "ok"'; then
    say parity FAILED: sanitizer
    kill "$warm"
    exec $gpu --timeout 200 --parts sanitizer -o "$OUT/sanitizer.json"
fi
wait "$warm"
cat "$OUT/warm.log"
say scan, network, profile
$gpu --mamba-ssm ~/mamba --parts scan network profile -o "$OUT/times.json"
cp "$(ls -t ~/.cache/bsmamba2/plugins/*/libbsm_scan.so | head -1)" "$OUT/"
say "done"
