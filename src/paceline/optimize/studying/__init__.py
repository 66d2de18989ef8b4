"""One study, from the original to the bundle."""
