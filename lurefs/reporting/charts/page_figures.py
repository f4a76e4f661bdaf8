"""The charts and sheets of one page, kept until all are made, then written beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from episodes.files import atomic_path
from lurefs.reporting.charts import image_sheets, style

if TYPE_CHECKING:
    from PIL.Image import Image


class PageFigures:
    """What a page shows, and the files of it.

    Args:
        folder: Where the files go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, bytes] = {}

    def chart(self, name: str, svg: str, *, caption: str, title: str = "", said: str = "") -> dict[str, Any]:
        """Keep a chart, and return what the page shows of it.

        Args:
            name: Its file's name without suffix.
            svg: What is drawn.
            caption: What it is, below it.
            title: A few words before the caption.
            said: What only a screen reader says, after title and caption.
        """
        from markupsafe import Markup

        label = " ".join(text for text in (f"{title}." if title else "", caption, said) if text)
        element = style.inline(svg, name=f"chart{len(self._files)}", label=label)
        self._files[f"{name}.svg"] = svg.encode()
        return {"svg": Markup(element), "title": title, "caption": caption}

    def sheet(self, name: str, image: Image) -> None:
        """Keep a sheet of images."""
        self._files[f"{name}.png"] = image_sheets.png_bytes(image)

    def write(self) -> None:
        """Write all files."""
        for name, content in self._files.items():
            with atomic_path(self.folder / name) as temporary:
                temporary.write_bytes(content)
