"""What a call leaves behind: its event file and its call record, on disk, at a URL or in an object store."""
