"""`python -m autopilothq`: the program, where the folder of its script is not in the PATH."""

from .cli import main

if __name__ == "__main__":
    main()
