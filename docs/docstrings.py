"""Parts the sections of docstrings by blank lines, as mkdocstrings wants them; the code writes them without."""

import re
from typing import Any

import griffe

_SECTION = re.compile(r"\n([ ]*)(Returns|Raises|Yields|Attributes|Source):")


class SpacedSections(griffe.Extension):
    """Spaces a docstring when it is loaded."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every object."""
        if obj.docstring:
            obj.docstring.value = _SECTION.sub(r"\n\n\1\2:", obj.docstring.value)
