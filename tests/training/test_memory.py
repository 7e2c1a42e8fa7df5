"""Freed memory is there for the next arrays."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from training.run.memory import keep_freed_memory

if {kept}:
    print(keep_freed_memory())
with ThreadPoolExecutor(1) as thread:  # as XLA, whose arrays are not made by the main thread
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            thread.submit(np.ones, 2**23).result()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(kept: bool, **environment: str) -> list[str]:
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    ours["NUMPY_MADVISE_HUGEPAGE"] = "0"  # or faults are few anyway
    command = [sys.executable, "-c", FAULTS.format(kept=kept)]
    done = subprocess.run(command, env=ours | environment, capture_output=True, check=True)
    return done.stdout.decode().split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_arrays_find_the_memory_of_those_before_them():
    pages = 4 * 8 * 2**23 // os.sysconf("SC_PAGE_SIZE")
    (faults,) = run(kept=False)
    did, faults_kept = run(kept=True)
    assert did == "True"
    assert int(faults) > pages / 2
    assert int(faults_kept) < pages / 100


def test_settings_of_the_environment_stay():
    assert run(kept=True, MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"


FREED = """
import numpy as np
from training.run.memory import give_back_freed_memory, keep_freed_memory


def resident():
    return int(open("/proc/self/statm").read().split()[1])


keep_freed_memory()
parts = [np.ones(2**15) for _ in range(400)]
last = np.ones(1)  # what lies after the others
full = resident()
del parts
kept = resident()
give_back_freed_memory()
print((full - kept) / full, (full - resident()) / full)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no trim")
def test_freed_memory_goes_back_when_it_is_asked_for():
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, check=True)
    kept, given_back = map(float, done.stdout.split())
    assert kept < 0.1
    assert given_back > 0.3
