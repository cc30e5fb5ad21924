"""The files of a run: its folder, the addresses of its services, its JSON lines, and its summary.

Start reading at folder.py, which names every file.
"""
