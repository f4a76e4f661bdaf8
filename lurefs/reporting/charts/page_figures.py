"""Charts and image sheets of one page, kept in memory until all are made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from episodes.files import atomic_path
from lurefs.reporting.charts import image_sheets, style

if TYPE_CHECKING:
    from PIL.Image import Image


class PageFigures:
    """Charts and image sheets of a page, and their files.

    Args:
        folder: Where the files go.

    Attributes:
        is_whole: Whether all charts could be drawn, and the images be read that the data set has.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_whole = True
        self._files: dict[str, bytes] = {}

    def chart(self, name: str, svg: str, *, caption: str, title: str = "", said: str = "") -> dict[str, Any]:
        """Keep a chart, and return its element, title and caption for the page.

        Args:
            name: Its file's name without suffix.
            svg: The drawing.
            caption: The text below it.
            title: A few words before the caption.
            said: Text for screen readers only, after title and caption.
        """
        from markupsafe import Markup

        self.is_whole &= style.UNDRAWN not in svg
        label = " ".join(text for text in (f"{title}." if title else "", caption, said) if text)
        element = style.inline(svg, name=f"chart{len(self._files)}", label=label)
        self._files[f"{name}.svg"] = svg.encode()
        return {"svg": Markup(element), "title": title, "caption": caption}

    def sheet(self, name: str, image: Image) -> None:
        """Keep a sheet of images."""
        self._files[f"{name}.png"] = image_sheets.png_bytes(image)

    @property
    def names(self) -> list[str]:
        """The names of the files."""
        return list(self._files)

    def write(self) -> None:
        """Write all files."""
        for name, content in self._files.items():
            with atomic_path(self.folder / name) as temporary:
                temporary.write_bytes(content)
