"""Which candidates are there, and which is the best of them?"""
