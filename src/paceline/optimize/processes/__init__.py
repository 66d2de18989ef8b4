"""How is each step, and each candidate, kept apart? In a process of its own, with deadlines."""
