"""PushT: environment, pictures, and episodes of a policy."""
