"""The server: a page, an HTTP API and an MCP server over one video index. `impart serve` starts it."""
