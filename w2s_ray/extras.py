"""Packages that only some studies need: one line says which extra installs one that is absent.

The core runs last-layer and full studies of one process on files, folders and generated data.
"""

from importlib.util import find_spec

from w2s_ray.errors import InputError

# The extra of pyproject.toml that brings a module.
EXTRA_OF = {
    "boto3": "aws",
    "datasets": "hub",
    "deepspeed": "deepspeed",
    "gguf": "gguf",
    "peft": "lora",
    "shtab": "completion",
}


def require(module: str, given: str, place: tuple[int | str, ...] = ()) -> None:
    """Checks that ``module`` is installed, without importing it.

    Args:
        given: what needs it, as the beginning of the sentence: "execution.workers: given 2".
        place: the field of the spec that asks for it.

    Raises:
        InputError: it is not installed.
    """
    if find_spec(module) is None:
        command = f"pip install 'w2s-ray[{EXTRA_OF[module]}]'"
        raise InputError(f"{given}, which needs the package {module}: {command}", place)
