#!/usr/bin/env bash
# usage: bench/gpu/prepare.sh MAMBA_GIT_DIR [no-rtx]
# Puts into .gpu1 and .gpu2 what a GPU machine without network access needs besides the checkout,
# each folder under 64 MB: state-spaces/mamba's Python (Triton) sources from a git directory of its
# repository, TensorRT's headers, and the wheels of TensorRT-RTX for Python 3.12, whose library is
# compressed and split in two. Run `make test` once before. On that machine, with OUT set to a
# folder, run one after the other:
#     bash .gpu1/part1.sh      kernels, parity, times: 6 minutes
#     bash .gpu2/part2.sh      TensorRT-RTX and plans: 4 minutes
set -euo pipefail
mamba=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
rtx=1.7.1.116
site=$(.venv-test/bin/python -c 'import importlib.util as u, os
print(os.path.dirname(u.find_spec("kernel_lens").submodule_search_locations[0]))')
rm -rf .gpu1 .gpu2
mkdir -p .gpu1/mamba .gpu2/site .gpu2/tensorrt
cp bench/gpu/part1.sh .gpu1/
cp bench/gpu/part2.sh .gpu2/
git --git-dir="$mamba" archive HEAD mamba_ssm | tar -x -C .gpu1/mamba
find .gpu1/mamba -type f ! -name '*.py' -delete
cp "${site:?}"/kernel_lens/include/tensorrt/*.h .gpu2/tensorrt/
[ "${2:-}" = no-rtx ] && exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    -d "$work" "tensorrt-rtx-cu13-libs==$rtx" "tensorrt-rtx-cu13-bindings==$rtx"
for wheel in "$work"/*.whl; do python3 -m zipfile -e "$wheel" "$work/site"; done
[ -d "$work/site/tensorrt_rtx" ] || cp -r "$site/tensorrt_rtx" "$work/site/"  # pure Python
find "$work/site" -name __pycache__ -prune -exec rm -rf {} +
library=$(find "$work/site" -name 'libtensorrt_rtx.so.1' | head -1)
xz -T0 -6 -c "$library" >"$work/rtx.xz"
half=$((($(stat -c %s "$work/rtx.xz") + 1) / 2))
head -c "$half" "$work/rtx.xz" >.gpu1/rtx.0
tail -c +$((half + 1)) "$work/rtx.xz" >.gpu2/rtx.1
find "$work/site" -name '*.so*' -size +20M -delete
cp -r "$work/site/." .gpu2/site/
du -sh .gpu1 .gpu2
