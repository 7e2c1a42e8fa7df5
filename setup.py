"""The one compiled part; pyproject.toml says everything else.

It is optional: where there is no C++ compiler, or no jaxlib with the headers that it needs,
programs of XLA take its place.
"""

import glob
import importlib.util
import sys
from pathlib import Path

from setuptools import Extension, setup

FOR_MSVC = ["/std:c++17", "/O2"]
FOR_OTHERS = ["-std=c++17", "-O3", "-ffp-contract=fast", "-Wno-psabi"]

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
setup(ext_modules=kernels)
