"""PushT simulator, closed-loop evaluation, report and videos; no robot needs any of it."""
