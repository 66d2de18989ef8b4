"""N server processes on one port: started, watched, replaced."""
