"""`python -m lurefs` is the command `lurefs`."""

from lurefs.cli import main

if __name__ == "__main__":
    main()
