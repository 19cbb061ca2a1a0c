"""Hooks of the documentation site, see ``mkdocs.yml``."""

from __future__ import annotations

import re
from typing import Any

_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_NESTED = re.compile(r"^  (?=- |\|)", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Indents lists and tables inside list items by four spaces in place of two, as Python-Markdown expects it.

    Example:
        >>> on_page_markdown("- a\\n  - b\\n")
        '- a\\n    - b\\n'
    """
    parts, end = [], 0
    for code in _CODE.finditer(markdown):
        parts += [_NESTED.sub("    ", markdown[end : code.start()]), code.group()]
        end = code.end()
    return "".join([*parts, _NESTED.sub("    ", markdown[end:])])
