"""`python -m straylight` is the command `straylight`."""

from straylight.cli import main

if __name__ == "__main__":
    main()
