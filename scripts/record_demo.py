"""The terminal recording of the README, from a real run of the demo.

    python scripts/record_demo.py               # runs the demo and writes docs/images/demo.svg

The command runs as a user would run it; what it printed is drawn as it came, progress and result in their order.
"""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

TARGET = Path(__file__).parents[1] / "docs" / "images" / "demo.svg"
COMMAND = 'leyline run --suite micro --tasks 5 --first-solved --policy "truncate_older_than(n=2, max_chars=200)"'
# rich's own template loads a font from a server; a picture that is opened offline must not.
FORMAT = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<title>leyline run: an agent fixes a generated bug while its old tool outputs are cut</title>
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
 font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: system-ui, sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g></g></svg>
"""


def main() -> int:
    env = {**os.environ, "COLUMNS": "118", "NO_COLOR": "1"}
    words = [str(Path(sys.executable).with_name("leyline")), *shlex.split(COMMAND)[1:]]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, timeout=600)
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        return done.returncode
    console = Console(record=True, width=118, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(Text(f"$ {COMMAND}"))
    for line in done.stdout.splitlines():
        console.print(Text("trajectories: ..." if line.startswith("trajectories: ") else line))
    TARGET.write_text(console.export_svg(title="leyline", code_format=FORMAT, unique_id="demo"), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
