"""``python -m regcache`` is the console script."""

from __future__ import annotations

from regcache.commands import main

if __name__ == "__main__":
    main()
