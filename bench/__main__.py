"""`python -m bench` is `effortbench`."""

from bench.cli import main

if __name__ == "__main__":
    main()
