"""Safety: middlewares that refuse what a server on a person's machine must not answer, and bound what it does at once.

They are plain ASGI applications around another one, so that streams and cancellation pass through them unchanged.
"""
