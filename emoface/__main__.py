"""``python -m emoface``."""

from emoface.cli import main

if __name__ == "__main__":
    main()
