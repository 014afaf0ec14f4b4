"""Parametrizations as tables: initial values, learning rates and multipliers per tensor."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "ForwardMultipliers": "table",
        "ParametrizationTable": "table",
        "TensorEntry": "table",
        "table": "table",
        "forward_multipliers": "table",
        "ParameterGroup": "apply",
        "apply": "apply",
        "parameter_groups": "apply",
        "set_forward_multipliers": "apply",
    },
)
