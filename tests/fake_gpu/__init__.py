"""A GPU for the runtime of plans where there is none.

Real in these tests: the sidecar, its checks, everything of `runtime/`, the arithmetic of the
transforms and of the mask product (NumPy, SciPy), and the network (ONNX Runtime on the plan's ONNX
file, which is all that a fake plan consists of). Pretended, because nothing of it runs without a
driver, are the calls that these lines make:

- `runtime/engines/tensorrt/device.py`: the calls of `cupy.cuda` in `open_device`,
  `_check_libraries` and `_no_device_sentence`, and the memory pools in `free_memory`. Their
  failing side runs for real in `tests/runtime/engines/test_plan_machine.py`, where CuPy is
  installed;
- `runtime/engines/tensorrt/runtime.py`: from `Runtime` on (what TensorRT-RTX says without a
  driver is real, there too), so contexts;
- `runtime/engines/tensorrt/network.py`: every call of a context, of a stream and of a graph;
- `runtime/engines/tensorrt/slot.py`: arrays, copies, pinned memory and plans of cuFFT;
- `runtime/engines/stft.py` and `masked`, `finite_frames` of `runtime/engines/estimation.py`:
  CuPy's arrays.

What is pretended is strict where a GPU would be silent: streams do nothing until somebody waits
for them, fresh memory is full of NaN, and a plan of cuFFT belongs to one stream.
"""
