"""The one compiled part; pyproject.toml says everything else.

It is optional: where there is no C++ compiler, or no jaxlib with the headers that it needs,
programs of XLA take its place.
"""

import glob
import importlib.util
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FOR_MSVC = ["/std:c++17", "/O2"]
FOR_OTHERS = ["-std=c++17", "-O3", "-ffp-contract=fast", "-Wno-psabi"]


class BuildOnAllCores(build_ext):
    """Compiles several files at once: each takes up to half a minute."""

    def build_extensions(self):
        one_after_the_other = self.compiler.compile

        def compile_all(sources, **options):
            def compile_one(source):
                return one_after_the_other([source], **options)

            with ThreadPoolExecutor(os.cpu_count()) as cores:
                return [each for part in cores.map(compile_one, sources) for each in part]

        if self.compiler.compiler_type == "unix":
            self.compiler.compile = compile_all
        super().build_extensions()


jaxlib = importlib.util.find_spec("jaxlib")
kernels = []
if jaxlib is not None and jaxlib.origin is not None:
    kernels.append(
        Extension(
            "zoo.recurrence._compiled",
            sorted(glob.glob("zoo/recurrence/cpp/*.cc")),
            depends=sorted(glob.glob("zoo/recurrence/cpp/*.h")),
            include_dirs=[str(Path(jaxlib.origin).parent / "include")],
            extra_compile_args=FOR_MSVC if sys.platform == "win32" else FOR_OTHERS,
            optional=True,
        )
    )
setup(ext_modules=kernels, cmdclass={"build_ext": BuildOnAllCores})
