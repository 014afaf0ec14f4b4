"""Parametrizations as tables: initial values, learning rates and multipliers per tensor."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "ForwardMultipliers": "tables",
        "ParametrizationTable": "tables",
        "TensorEntry": "tables",
        "table": "tables",
        "forward_multipliers": "tables",
        "ParameterGroup": "application",
        "apply": "application",
        "parameter_groups": "application",
        "set_forward_multipliers": "application",
    },
)
