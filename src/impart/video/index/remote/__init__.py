"""The index on object storage: tables at a URL, small files in a bucket with a copy in a local folder."""
