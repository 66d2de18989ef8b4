"""What does a well-known experiment on the response time of a model behind an API give here, and with Paceline?"""
