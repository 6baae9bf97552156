"""The method that a ``method`` section of the configuration describes."""

from typing import Any

from hydra.errors import HydraException
from hydra.utils import instantiate

from neuroada.config.errors import UserError
from neuroada.config.partial_functions import called_later
from neuroada.config.resolution import first_line
from neuroada.methods.contract import Method
from neuroada.methods.untrained import Untrained
from neuroada.sparse.errors import AdapterError


def method_of(section: dict[str, Any]) -> Method:
    """The method of a configuration's ``method`` section; a section without a class trains nothing.

    Raises:
        UserError: The method's class rejects a setting.
    """
    if "_target_" not in section:
        return Untrained(name=section["name"], label=section["label"])
    try:
        method: Method = instantiate(called_later(section), _convert_="all")
    except HydraException as error:
        cause = error.__cause__ or error
        if isinstance(cause, UserError | AdapterError):
            raise cause from None
        raise UserError(f"method={section.get('name')}: {first_line(error)}") from error
    return method
