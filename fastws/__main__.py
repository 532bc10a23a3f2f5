"""`python -m fastws` is the command line, too."""

from .command.main import main

if __name__ == "__main__":
    main()
