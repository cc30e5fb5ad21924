"""What every room shares: settings, wire records, streams, the weight channel, the command line."""
