"""User code runs in processes of its own: how they are started, spoken to and ended.

The server never imports what a user wrote. A worker is one process that holds one instance; both sides exchange
frames (`frames.py`) over a pair of file descriptors (`channel.py`). What crashes, hangs or leaks there costs one
worker.
"""
