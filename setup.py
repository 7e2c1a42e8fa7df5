"""The one compiled part; pyproject.toml says everything else.

It is optional: where there is no C++ compiler, programs of XLA take its place.
"""

import glob
import importlib.util
import sys
from pathlib import Path

from setuptools import Extension, setup

jaxlib = importlib.util.find_spec("jaxlib")
assert jaxlib is not None
assert jaxlib.origin is not None
options = (
    ["/std:c++17", "/O2"]
    if sys.platform == "win32"
    else ["-std=c++17", "-O3", "-ffp-contract=fast", "-Wno-psabi"]
)
setup(
    ext_modules=[
        Extension(
            "zoo._compiled",
            sorted(glob.glob("zoo/cpp/*.cc")),
            depends=["zoo/cpp/share.h"],
            include_dirs=[str(Path(jaxlib.origin).parent / "include")],
            extra_compile_args=options,
            optional=True,
        )
    ]
)
