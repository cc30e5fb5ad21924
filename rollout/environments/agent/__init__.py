"""Environment `agent`: a program written against OpenAI's API talks with the policy, and is trained unchanged.

Start reading at environment.py, which makes a conversation of what the program asks; server.py is the API that it sees,
request.py what is asked and whether one request goes on from another, chat.py and responses.py how OpenAI writes requests and
answers, and program.py how an agent is run.
"""
