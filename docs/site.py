"""What MkDocs cannot say in mkdocs.yml: the order of pages, and what links to files beside docs/ become.

A page that stands nowhere below comes last, so a new docs/*.md is on the site without a change here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ORDER: dict[str, list[str]] = {
    "Use": ["serving", "video", "scaling", "fast", "friends", "export"],
    "Models": ["model-card", "official-models", "evaluation", "training", "data", "training-log"],
    "Inside": ["api", "architecture"],
}
DOCS = Path(__file__).parent


def on_config(config: Any) -> Any:
    """Every page of docs/ is in the navigation, those of `ORDER` first."""
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    nav: list[Any] = [{"SEEM": "index.md"}]
    for title, names in ORDER.items():
        nav.append({title: [f"{name}.md" for name in names if name in pages]})
        pages -= set(names)
    if pages:
        nav.append({"More": [f"{name}.md" for name in sorted(pages)]})
    config["nav"] = nav
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Files of the repository that are not on the site are named, not linked, if they are there."""

    def name(match: re.Match[str]) -> str:
        return match[1] if (DOCS / match[2]).exists() else match[0]

    return re.sub(r"\[([^\]]*)\]\((\.\./[^)#\s]*)(?:#[^)]*)?\)", name, markdown)
