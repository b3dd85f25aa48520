"""For `make docs`: links of a page to what the site has no page of (folders, files beside docs/) become plain text."""

import posixpath
import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#:\s]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """mkdocs calls it with the text of each page. Targets that do not exist stay, for the strict build to refuse."""
    root, folder = Path(config["docs_dir"]), posixpath.dirname(page.file.src_uri)

    def kept(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2]))
        outside = target.startswith("..") or (root / target).is_dir()
        return link[1] if outside and (root / target).exists() else link[0]

    return LINK.sub(kept, markdown)
