#!/usr/bin/env bash
# Builds the scan, then first light, parity and mask; then scan, network and profile. See prepare.sh.
set -u
export PYTHONUNBUFFERED=1
gpu="python3 bench/gpu/measure.py --quick --timeout 150"
say() { echo "=== [$SECONDS s] $*"; }

nvidia-smi -L
mkdir -p ~/rtx
cp -f .gpu1/rtx.* ~/rtx/ 2>/dev/null
cp -r .gpu1/mamba ~/mamba
(timeout 240 python3 bench/gpu/warm.py ~/mamba >"$OUT/warm.log" 2>&1) &
warm=$!
say build
$gpu --parts build -o "$OUT/build.json" >"$OUT/build.log" 2>&1 || tail -30 "$OUT/build.log"
library=$(ls -t ~/.cache/bsmamba2/plugins/*/libbsm_scan.so 2>/dev/null | head -1)
[ -n "$library" ] || exit 1
say first light
timeout 90 python3 bench/gpu/first_light.py "$library" || say FIRST LIGHT FAILED
say parity, mask
$gpu --library "$library" --parts parity mask -o "$OUT/parity.json"
if ! grep -A 1 '"parity": {' "$OUT/parity.json" | grep -q '"status": "ok"'; then
    say parity FAILED: sanitizer
    kill "$warm"
    exec $gpu --timeout 200 --library "$library" --parts sanitizer -o "$OUT/sanitizer.json"
fi
wait "$warm"
cat "$OUT/warm.log"
say scan, network, profile
$gpu --library "$library" --mamba-ssm ~/mamba --parts scan network profile -o "$OUT/times.json"
cp "$library" "$OUT/libbsm_scan.so"
say "done"
