"""The browser and the server of the tests of the page."""

from helpers.browser import chromium, open_page, site

__all__ = ["chromium", "open_page", "site"]
