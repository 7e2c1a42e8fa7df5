"""One thread for LAPACK."""

from contextlib import AbstractContextManager
from functools import cache

import scipy.linalg  # noqa: F401  (its BLAS is JAX's, which loads it later)
from threadpoolctl import ThreadpoolController


def one_blas_thread() -> AbstractContextManager:
    """A context in which NumPy's, SciPy's and JAX's BLAS on CPU run on one thread.

    The threads of OpenBLAS wait for each other actively, thousands of times in one SVD. Where
    another process has one of the cores, as a data loader does, each wait lasts a time slice (seen
    on 2 cores: 10 s instead of 0.5 s, n = 1024). On idle cores one thread costs a fifth more.
    """
    return _controller().limit(limits=1, user_api="blas")


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()
