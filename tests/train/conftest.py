"""Fixtures of all tests in this folder."""

from helpers.one_thread import _one_thread  # noqa: F401
