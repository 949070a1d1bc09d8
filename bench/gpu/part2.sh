#!/usr/bin/env bash
# Unpacks TensorRT-RTX and runs plan; on the same machine, right after part1.sh. See prepare.sh.
set -u
export PYTHONUNBUFFERED=1
site=~/rtx/site

mkdir -p "$site"
cp -f .gpu2/rtx.* ~/rtx/
cp -r .gpu2/site/* "$site/"
cat ~/rtx/rtx.0 ~/rtx/rtx.1 | python3 -c "import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.stdin.buffer), sys.stdout.buffer)" \
    >"$site/tensorrt_rtx_libs/libtensorrt_rtx.so.1"
export PYTHONPATH=$site TENSORRT_INCLUDE_DIR=$PWD/.gpu2/tensorrt
python3 bench/gpu/measure.py --quick --timeout 390 --mamba-ssm ~/mamba --parts plan -o "$OUT/plan.json"
