"""Processes of jobs: each reads its request from standard input and writes messages to standard output."""
