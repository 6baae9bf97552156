"""NeuroAda as a method of the peft library: after ``import neuroada.peft``, ``get_peft_model`` takes its configuration.

The import tells peft of the method, so that ``PeftModel.from_pretrained`` knows its files, which are those of
``neuroada.attach``. Whatever trains a ``PeftModel``, such as the Hugging Face Trainer and TRL, trains it unchanged.
Needs peft 0.19 or newer.
"""

try:
    import peft
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "neuroada.peft needs the library peft, which is not installed; use: pip install 'neuroada[peft]'", name="peft"
    ) from error

from neuroada.peft.config import NeuroAdaConfig
from neuroada.peft.registration import register
from neuroada.peft.tuner import NeuroAdaModel

register(peft, NeuroAdaConfig, NeuroAdaModel)

__all__ = ["NeuroAdaConfig", "NeuroAdaModel"]
