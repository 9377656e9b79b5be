"""``python -m unalike``: the same program as ``unalike``."""

from .cli import main

if __name__ == "__main__":
    main()
