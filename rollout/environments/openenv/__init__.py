"""Environment `openenv`: a server of OpenEnv, asked over a WebSocket, one session for each conversation.

Start reading at environment.py, which makes actions of what the policy says; session.py speaks OpenEnv's protocol.
"""
