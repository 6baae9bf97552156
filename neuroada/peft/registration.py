"""Make a method known to peft, whose own ``register_peft_method`` takes only names of its enumeration.

peft asks ``config.peft_type in list(PeftType)``, prints members by their class, and looks them up by attribute, so that
a string in its tables is not enough: the enumeration gets a member.
"""

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from peft.tuners.tuners_utils import BaseTuner
from peft.utils.peft_types import PeftType, register_peft_method

from neuroada.sparse.adapter_files import KIND
from neuroada.sparse.errors import AdapterError

OLDEST = (0, 19)
"""Of the versions of peft that this works with."""


def register(peft: ModuleType, config_class: type, tuner_class: type[BaseTuner]) -> None:
    """Tell peft of the method, once in a process.

    Raises:
        AdapterError: This peft is too old, or has a method of this name already.
    """
    if tuple(int(part) for part in peft.__version__.split(".")[:2]) < OLDEST:
        raise AdapterError(
            f"neuroada.peft needs peft {'.'.join(map(str, OLDEST))} or newer, this is {peft.__version__}"
        )
    if hasattr(PeftType, KIND):
        raise AdapterError(f"peft {peft.__version__} has a method named {KIND} already; use that, or another version")
    _add_member(KIND)
    register_peft_method(name=KIND.lower(), config_cls=config_class, model_cls=tuner_class, prefix=tuner_class.prefix)
    if not hasattr(BaseTuner, "_get_adapter_state_dict"):
        _ask_tuner_for_state_dicts(peft, tuner_class)


def _add_member(name: str) -> None:
    """What the class statement of an enumeration of strings does for each of its lines."""
    member = str.__new__(PeftType, name)
    member._name_ = member._value_ = name
    type.__setattr__(PeftType, name, member)
    PeftType._member_map_[name] = member
    PeftType._member_names_.append(name)
    PeftType._value2member_map_[name] = member


def _ask_tuner_for_state_dicts(peft: ModuleType, tuner_class: Any) -> None:
    """As peft does since 0.21; before, it knew what of a state dict is an adapter's for its own methods only."""
    files = peft.utils.save_and_load
    get, put = files.get_peft_model_state_dict, files.set_peft_model_state_dict

    @functools.wraps(get)
    def get_state_dict(
        model: Any, state_dict: Any = None, adapter_name: str = "default", *args: Any, **kwargs: Any
    ) -> Any:
        plain = getattr(model, "_orig_mod", model)
        config = plain.peft_config[adapter_name]
        if config.peft_type != KIND:
            return get(model, state_dict, adapter_name, *args, **kwargs)
        return tuner_class._get_adapter_state_dict(plain, config, adapter_name, state_dict or {}, [])

    @functools.wraps(put)
    def put_state_dict(
        model: Any, peft_model_state_dict: Any, adapter_name: str = "default", *args: Any, **kwargs: Any
    ) -> Any:
        config = model.peft_config[adapter_name]
        if config.peft_type != KIND:
            return put(model, peft_model_state_dict, adapter_name, *args, **kwargs)
        loaded = tuner_class._remap_adapter_state_dict_for_load(model, config, adapter_name, peft_model_state_dict)
        return model.load_state_dict(loaded, strict=False)

    _replace(get, get_state_dict)
    _replace(put, put_state_dict)


def _replace(old: Callable[..., Any], new: Callable[..., Any]) -> None:
    """In each module that has imported a function."""
    for module in list(sys.modules.values()):
        for name in [name for name, value in list(vars(module).items()) if value is old]:
            setattr(module, name, new)
