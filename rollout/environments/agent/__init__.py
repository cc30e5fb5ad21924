"""Environment `agent`: a program written against OpenAI's API talks with the policy, and is trained unchanged.

Start reading at environment.py, which makes a conversation of what the program asks; server.py is the API that it sees, chat.py
what its requests and their answers are, and program.py how it is run.
"""
