"""What the stepped engine counts by itself: the cycles that its kernels went through."""

from contextlib import contextmanager

import pytest

from accelsim.simulator.engine import gemm as engine


@contextmanager
def counted_steps():
    """Collect the multiply cycles that the kernels return, GEMM by GEMM in the order in which they are stepped."""
    steps, step = [], engine.step_gemm

    def counting(*arguments, **named):
        result = step(*arguments, **named)
        steps.append(result[1])
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "step_gemm", counting)
        yield steps
