"""Run the command line as a module, for launchers that start modules: `accelerate launch -m impart train ...`."""

from impart.cli.main import main

if __name__ == "__main__":
    main()
