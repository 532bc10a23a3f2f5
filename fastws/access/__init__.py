"""Who may what: rules for channels, tokens, keys."""
