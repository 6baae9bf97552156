"""The setting of torch's allocator: a default that never replaces the user's."""

import subprocess
import sys

import pytest

from neuroada.runs.cuda_memory import let_segments_grow

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="torch has them on Linux only")


def test_segments_grow_by_default() -> None:
    environment: dict[str, str] = {}
    let_segments_grow(environment)
    assert environment == {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}


@pytest.mark.parametrize("name", ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"])
@pytest.mark.parametrize("value", ["", "max_split_size_mb:128"])
def test_what_the_user_has_set_stays_alone(name: str, value: str) -> None:
    environment = {name: value}
    let_segments_grow(environment)
    assert environment == {name: value}


def test_it_is_set_before_a_job_imports_torch() -> None:
    """torch reads it once, at the first use of a GPU or at its import."""
    code = (
        "import os, sys; os.environ.pop('PYTORCH_CUDA_ALLOC_CONF', None); "
        "import neuroada.command_line.job; "
        "assert 'torch' not in sys.modules and os.environ['PYTORCH_CUDA_ALLOC_CONF'] == 'expandable_segments:True'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
