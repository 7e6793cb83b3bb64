"""`python -m impart.recipes.mini.collect`: collect further training images for `mini`."""

from impart.recipes.mini.collect.sources import main

if __name__ == "__main__":
    raise SystemExit(main())
