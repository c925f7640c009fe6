"""Former name of :mod:`pyannote_av.training.from_config`.

Once imported, this module hides the function ``pyannote_av.training.train``, and can therefore be
called like it.
"""

import sys
from types import ModuleType
from typing import Any

from pyannote_av.training import from_config


class _Former(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return from_config.train(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(from_config, name)


sys.modules[__name__].__class__ = _Former
