"""``python -m unalike``: the same program as ``unalike``."""

from unalike.cli import main

if __name__ == "__main__":
    main()
