"""How a page looks, and what axe-core finds: for the tests of the console.

With UPDATE_IMAGES=1 the pictures in `docs/images/` are made again.
"""

import os
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

IMAGES = Path(__file__).parents[2] / "docs" / "images"
_AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
_WIDE, _NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


def shoot(page: Page, name: str, *, dark: bool = True, narrow: bool = True) -> None:
    """Keep pictures of the page: `console-NAME.png`, `-dark`, `-narrow`."""
    if not os.environ.get("UPDATE_IMAGES"):
        return
    page.set_viewport_size(_WIDE)  # type: ignore[arg-type]
    page.screenshot(path=IMAGES / f"console-{name}.png")
    if dark:
        page.emulate_media(color_scheme="dark")
        page.screenshot(path=IMAGES / f"console-{name}-dark.png")
        page.emulate_media(color_scheme="light")
    if narrow:
        page.set_viewport_size(_NARROW)  # type: ignore[arg-type]
        page.screenshot(path=IMAGES / f"console-{name}-narrow.png")
        page.set_viewport_size(_WIDE)  # type: ignore[arg-type]


def defects(page: Page) -> list[str]:
    """The serious and critical defects that axe-core finds, light and dark, wide and narrow."""
    found: list[str] = []
    for scheme in ("light", "dark"):
        for size in (_WIDE, _NARROW):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.set_viewport_size(size)  # type: ignore[arg-type]
            page.evaluate(_AXE.read_text())
            report: dict[str, Any] = page.evaluate("axe.run({resultTypes: ['violations']})")
            found += [
                f"{scheme} {size['width']}: {entry['id']} {node['target']} {node['failureSummary']}"
                for entry in report["violations"]
                if entry["impact"] in {"serious", "critical"}
                for node in entry["nodes"]
            ]
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(_WIDE)  # type: ignore[arg-type]
    return found
