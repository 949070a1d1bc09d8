"""Compiles the scan for CPUs where a C++ compiler is; everything else is in pyproject.toml.

Without a compiler, or where it fails, the package installs all the same: ONNX Runtime then computes
the scan by the body in the model's file, and `bsm doctor` says what that costs.
"""

from __future__ import annotations

import os
import runpy
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

RECIPE = runpy.run_path(str(Path(__file__).parent / "plugins" / "cpu_sources.py"))
COMPILATIONS = RECIPE["compilations"]()


class BuildScan(build_ext):
    """One shared library, its kernels compiled once for each instruction set."""

    def build_extension(self, ext: Extension) -> None:
        """Compiles and links; setuptools makes a warning of a failure, as `ext` is optional."""
        if self.compiler.compiler_type != "unix":
            raise CompileError("the scan for CPUs needs GCC or Clang")
        objects: list[str] = []
        for source, name, flags in COMPILATIONS:
            folder = os.path.join(self.build_temp, name)
            objects += self.compiler.compile(
                [f"plugins/cpu/{source}"], output_dir=folder, extra_postargs=flags
            )
        path = self.get_ext_fullpath(ext.name)
        self.mkpath(os.path.dirname(path))
        self.compiler.link_shared_object(
            objects, path, extra_postargs=["-pthread"], target_lang="c++"
        )

    def get_ext_filename(self, fullname: str) -> str:
        """Without Python's own suffix: it is no module, and serves every version."""
        return os.path.join(*fullname.split(".")[:-1], RECIPE["LIBRARY"])


class Wheel(bdist_wheel):
    """For any Python 3 of this platform."""

    def get_tag(self) -> tuple[str, str, str]:
        """Python, ABI and platform."""
        return "py3", "none", super().get_tag()[2]


scan = Extension(
    "bsmamba2.plugins.libbsm_scan_cpu",
    sorted({f"plugins/cpu/{source}" for source, _, _ in COMPILATIONS}),
    depends=[*glob("plugins/cpu/*.h"), "plugins/include/bsm_scan_cpu.h", "plugins/cpu_sources.py"],
    language="c++",
    optional=True,
)
setup(ext_modules=[scan], cmdclass={"build_ext": BuildScan, "bdist_wheel": Wheel})
