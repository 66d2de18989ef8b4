"""What is made of the outcome of a load test: its document, pages, summaries, and gates."""
