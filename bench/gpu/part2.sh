#!/usr/bin/env bash
# TensorRT-RTX, then plans; on the same machine, right after part1.sh. See prepare.sh.
set -u
export PYTHONUNBUFFERED=1
site=~/rtx/site
say() { echo "=== [$SECONDS s] $*"; }

mkdir -p "$site"
cp -f .gpu2/rtx.* ~/rtx/
cp -r .gpu2/site/* "$site/"
cat ~/rtx/rtx.0 ~/rtx/rtx.1 | python3 -c "import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.stdin.buffer), sys.stdout.buffer)" \
    >"$site/tensorrt_rtx_libs/libtensorrt_rtx.so.1"
export PYTHONPATH=$site TENSORRT_INCLUDE_DIR=$PWD/.gpu2/tensorrt
say smoke
timeout 120 python3 bench/gpu/rtx_smoke.py 2>&1 | tee "$OUT/rtx.txt"
grep -q '"runs": true' "$OUT/rtx.txt" || exit 1
library=$(ls -t ~/.cache/bsmamba2/plugins/*/libbsm_scan.so | head -1)
say plan
python3 bench/gpu/measure.py --quick --timeout 270 --library "$library" --mamba-ssm ~/mamba --parts plan \
    -o "$OUT/plan.json"
say "done"
