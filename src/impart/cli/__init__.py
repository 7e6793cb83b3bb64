"""The command line: parse and print only, one module a command group. Results to stdout, progress to stderr."""
