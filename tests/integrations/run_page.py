"""Runs the blocks of docs/integrations.md one after the other, as `test_page.py` starts it."""

import sys

from tests.test_docs import ROOT, blocks_of, run_block

PAGE = ROOT / "docs" / "integrations.md"


def main() -> None:
    for block in blocks_of(PAGE):
        if block.language == "python":
            run_block(block)
            print(f"ran {block}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
