#!/usr/bin/env bash
# Makes the embedded model from scratch: songs, training in two parts, export, scores. This takes
# about three hours on two CPU cores, a quarter of an hour of them for the songs.
#
#     bench/embedded/make.sh FOLDER [RUNTIME_FILE]
#
# It needs the extras train, export, practice and av, the Debian packages that 'bsm practice' names,
# fluid-soundfont-gm, timgm6mb-soundfont and musescore-general-soundfont-small (other soundfonts
# give other songs), and the stempeg wheel for its excerpt of real music. Run again, it resumes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$1
engine=${2:-$work/default.onnx}

# Let OpenMP's idle threads sleep: on a shared machine, spinning threads would take the cores from
# the threads that they wait for.
export OMP_WAIT_POLICY=passive

bsm practice "$work/songs" --train 200 --valid 8 --test 16 --seconds 30 --seed 1 --jobs 2
bsm train --config small --data "$work/songs" --out "$work/run"
bsm train --config "$here/tune.yaml" --data "$work/songs" --out "$work/tune" \
    --start "$work/run/best.safetensors"
bsm export "$work/tune/best.safetensors" --card "$here/card.yaml" -o "$engine"
bsm eval "$engine" --data "$work/songs" --out "$work/eval" --by-length 1,2,4,8,16 --by-onset \
    --report "$work/report.html"
python "$here/excerpt.py" "$engine"
