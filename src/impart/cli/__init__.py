"""The command line, one module a command group: options become calls, results go to stdout, progress to stderr."""
