#!/usr/bin/env python
"""Bundle the parts of d3 that `minitx view` draws with, as minitx/inspect/page/assets/d3.min.js.

    scripts/page_library.py

Needs npm. Packages and versions are listed below; their licence (ISC) is kept at the top of the file.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "minitx/inspect/page/assets/d3.min.js"
PACKAGES = {
    "d3-hierarchy": "3.1.2",
    "d3-selection": "3.0.0",
    "d3-shape": "3.2.0",
}
ESBUILD = "0.28.2"
# What the page imports; the rest is left out of the bundle.
EXPORTS = """\
export { hierarchy, tree } from "d3-hierarchy";
export { pointer, select } from "d3-selection";
export { linkHorizontal } from "d3-shape";
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        versions = [f"{package}@{version}" for package, version in {**PACKAGES, "esbuild": ESBUILD}.items()]
        subprocess.run(["npm", "install", "--silent", "--no-audit", *versions], cwd=folder, check=True)
        (folder / "page.js").write_text(EXPORTS)
        esbuild = ["node_modules/.bin/esbuild", "page.js", "--bundle", "--minify", "--format=esm"]
        code = subprocess.run(esbuild, cwd=folder, check=True, capture_output=True, text=True).stdout
        licence = (folder / "node_modules/d3-selection/LICENSE").read_text().strip()
    parts = ", ".join(f"{package} {version}" for package, version in PACKAGES.items())
    origin = f"Parts of d3 (https://d3js.org): {parts}.\nBundled by scripts/page_library.py."
    head = f"/*!\n{origin}\n\n{licence}\n*/\n"
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(head + code)
    print(f"{TARGET.relative_to(ROOT)}: {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
