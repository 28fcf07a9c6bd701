"""Architectures that learn what their structure says they can, and fail where it says they cannot."""
