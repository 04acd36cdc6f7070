"""``python -m sizetransfer`` is the command ``sizetransfer``."""

from sizetransfer.cli import main

if __name__ == "__main__":
    main()
