"""PROVISIONAL shim by the lead, to be replaced whole by the data room."""
from typing import Any
from w2s_ray.spec.schema import DataSpec

def data_identity(data: DataSpec) -> dict[str, Any]:
    return data.model_dump(mode="json")
