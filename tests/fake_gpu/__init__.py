"""A fake GPU, to test the runtime of plans on machines without one.

Real in these tests: the sidecar and its checks, everything in `runtime/`, the arithmetic of the
transforms and of the mask product (NumPy, SciPy), and the network (ONNX Runtime on the ONNX file
inside the fake plan). The calls in these places are fake, because they do not run without a driver:

- `runtime/engines/tensorrt/device.py`: the calls of `cupy.cuda` in `open_device`,
  `_check_libraries` and `_no_device_sentence`, and the memory pools in `free_memory`. If CuPy is
  installed, `tests/runtime/engines/test_plan_machine.py` runs their real failures;
- `runtime/engines/tensorrt/runtime.py`: `Runtime` and contexts (the errors of the real
  TensorRT-RTX without a driver are tested in `test_plan_machine.py`, too);
- `runtime/engines/tensorrt/network.py`: every call of a context, of a stream and of a graph;
- `runtime/engines/tensorrt/slot.py`: arrays, copies, pinned memory and plans of cuFFT;
- `runtime/engines/stft.py` and `masked`, `finite_frames` of `runtime/engines/estimation.py`:
  CuPy's arrays.

The fake is strict where a GPU would fail silently: streams do nothing until the host waits for
them, fresh memory is full of NaN, and a plan of cuFFT belongs to one stream.
"""
