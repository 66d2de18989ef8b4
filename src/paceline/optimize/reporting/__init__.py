"""What people see of a study: in the terminal, in a browser, as Markdown."""
