"""`leyline` and `python -m leyline`: Ctrl-C while the command itself is still being imported is one line too."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the installed script."""
    try:
        from leyline.cli import main as run
    except KeyboardInterrupt:
        print("leyline: interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
