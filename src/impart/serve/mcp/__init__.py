"""`impart mcp`: the index as tools of an assistant, by the Model Context Protocol (MCP)."""
