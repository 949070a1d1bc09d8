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

PACKAGE = "bsmamba2.plugins"
RECIPE = runpy.run_path(str(Path(__file__).parent / "plugins" / "cpu_sources.py"))
FOLDER = f"plugins/{RECIPE['FOLDER']}"


class BuildScan(build_ext):
    """One shared library, its kernels compiled once for each instruction set."""

    def build_extension(self, ext: Extension) -> None:
        """Compiles and links; setuptools makes a warning of a failure, as `ext` is optional."""
        if self.compiler.compiler_type != "unix":
            raise CompileError("the scan for CPUs needs GCC or Clang")
        objects = []
        for variant in RECIPE["variants"]():
            objects += self._compile(RECIPE["KERNELS"], variant.name, variant.arguments)
        for source in RECIPE["OTHERS"]:
            objects += self._compile(source, "all", RECIPE["choice_arguments"]())
        path = self.get_ext_fullpath(ext.name)
        self.mkpath(os.path.dirname(path))
        self.compiler.link_shared_object(
            objects, path, extra_postargs=["-pthread"], target_lang="c++"
        )

    def _compile(self, source: str, name: str, arguments: tuple[str, ...] = ()) -> list[str]:
        objects: list[str] = self.compiler.compile(
            [f"{FOLDER}/{source}"],
            output_dir=os.path.join(self.build_temp, name),
            extra_postargs=[*RECIPE["FLAGS"], *arguments],
        )
        return objects

    def get_ext_filename(self, fullname: str) -> str:
        """Without Python's own suffix: it is no module, and serves every version."""
        return os.path.join(*fullname.split(".")[:-1], RECIPE["LIBRARY"])


class Wheel(bdist_wheel):
    """For any Python 3 of this platform."""

    def get_tag(self) -> tuple[str, str, str]:
        """Python, ABI and platform."""
        return "py3", "none", super().get_tag()[2]


sources = [f"{FOLDER}/{name}" for name in (RECIPE["KERNELS"], *RECIPE["OTHERS"])]
headers = [*glob(f"{FOLDER}/*.h"), "plugins/include/bsm_scan_cpu.h"]
setup(
    ext_modules=[
        Extension(
            f"{PACKAGE}.libbsm_scan_cpu",
            sources,
            depends=[*headers, "plugins/cpu_sources.py"],
            language="c++",
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildScan, "bdist_wheel": Wheel},
)
