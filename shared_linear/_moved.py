"""What pickles of 0.1 call by its name of then."""
import sys
import types

from shared_linear.compression import report
from shared_linear.layers import initial_weights, link, mixed_link
from shared_linear.surgery import callables, holding, kinds

MOVED: dict[str, dict[str, type]] = {
    'link': {'SharedLinear': link.SharedLinear},
    'mixed_link': {'MixedLinear': mixed_link.MixedLinear},
    'report': {'Report': report.Report, 'LayerReport': report.LayerReport},
    'surgery.edit': {
        cls.__name__: cls for cls in (
            callables.Called, callables.Portable, holding.Binding,
            holding.Holder, kinds.InsertAfter, kinds.InsertBefore,
            kinds.Remove, kinds.Replace, kinds.Rewire)},
    'tiled_link': {'_DenseVariance': initial_weights.DenseVariance},
}


def keep_old_names() -> None:
    for name, contents in MOVED.items():
        module = types.ModuleType('shared_linear.' + name)
        vars(module).update(contents)
        sys.modules[module.__name__] = module
