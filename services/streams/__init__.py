"""Streams between the rooms: claim, work, hand over exactly once."""

from services.streams.stream import Claim, IssueGap, IssueLog, Stream, StreamDepth

__all__ = ["Claim", "IssueGap", "IssueLog", "Stream", "StreamDepth"]
