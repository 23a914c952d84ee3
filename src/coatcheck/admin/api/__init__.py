"""The JSON API: what comes in is checked, handed to a service, and what that says is written out.

Nothing is decided here but the shape of requests and answers. `web` puts the routes together.
"""
