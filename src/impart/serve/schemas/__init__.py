"""Requests and answers of the API, as pydantic models; their fields are the OpenAPI document."""
