"""What is sent, and where: a server is asked, and requests are made that it accepts."""
