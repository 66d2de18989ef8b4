"""The wire: transport, routes and protocols. The only package that knows a status code."""
