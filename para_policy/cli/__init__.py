"""Commands of `para-policy`, one dataclass each; its fields are the options."""
